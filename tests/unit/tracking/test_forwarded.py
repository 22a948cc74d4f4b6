"""Log lines of a worker, as they arrive at the driver."""

from __future__ import annotations

from raysys.tracking.logs import forwarded, log


def test_lines_of_a_worker_arrive_without_the_label_of_the_driver() -> None:
    lines: list[str] = []
    with forwarded("train", lines.append):
        log.info("W&B: still waiting after %d s", 4)
        log.warning("    train  rebuilt from %d checkpoints", 2)
        log.debug("details")
    log.warning("after the block")
    assert lines == ["W&B: still waiting after 4 s", "rebuilt from 2 checkpoints"]
