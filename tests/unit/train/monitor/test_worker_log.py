"""Log lines of a worker arrive at the run's coordinator."""

from __future__ import annotations

from types import SimpleNamespace

from raysys.tracking.logs import log
from raysys.train.monitor.worker_log import log_to_driver


def test_lines_of_a_worker_arrive_without_the_label_of_the_driver() -> None:
    lines: list[str] = []
    coordinator = SimpleNamespace(log=SimpleNamespace(remote=lines.append))
    with log_to_driver(coordinator):
        log.info("W&B: still waiting after %d s", 4)
        log.warning("    train  rebuilt from %d checkpoints", 2)
        log.debug("details")
    log.warning("after the block")
    assert lines == ["W&B: still waiting after 4 s", "rebuilt from 2 checkpoints"]
