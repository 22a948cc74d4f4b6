"""A cluster of two nodes on this machine, a driver that trains on it, and ways to kill any part of that."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

from ray.cluster_utils import Cluster

from raysys.config import Config
from tests.ray.test_train import has_checkpoint
from tests.ray.training_driver import SLOT

ROOT = Path(__file__).parents[2]
STORE_BYTES = 150 * 2**20
# A node that is gone is known to be gone after two seconds, not after twenty.
HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,  # a busy machine may be slow to answer
    "health_check_failure_threshold": 4,
}


class TwoNodes:
    """A head, where drivers are at home, and another node; each has room for one training worker."""

    def __init__(self) -> None:
        head = {"include_dashboard": False, "_system_config": HEALTH_CHECKS, **_node(4)}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._other: Any = None
        self.add_other()

    @property
    def address(self) -> str:
        """Where drivers find it."""
        return str(self._cluster.address)

    @property
    def workers(self) -> list[int]:
        """The training workers of both nodes that run just now."""
        return [pid for node in (self._cluster.head_node, self._other) for pid in _workers_of(node)]

    def add_other(self) -> None:
        """Start the second node, if it is not there; from the main thread."""
        if self._other is None:
            self._other = self._cluster.add_node(
                # An address of its own: a driver is at home on the node that has the machine's.
                node_ip_address="127.0.0.2",
                **_node(2),
            )

    def kill_other(self) -> None:
        """The second node dies as by a power cut: its Ray and its workers at once."""
        left = _children(_raylet(self._other))
        self._cluster.remove_node(self._other, allow_graceful=False)
        self._other = None
        for pid in left:
            _kill(pid)

    def warn_other(self, seconds: int) -> None:
        """Tell Ray, as a cloud does, that the second node will be taken away after so many seconds."""
        command = [
            *("ray", "drain-node", "--address", self.address, "--node-id", self._other.node_id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "the cloud wants it back"),
            *("--deadline-remaining-seconds", str(seconds)),
        ]
        subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True)

    def is_other_gone(self) -> bool:
        """Whether Ray has left the second node, as it does when its time is over."""
        return _raylet_of(self._other).poll() is not None

    def kill_a_worker(self, dice: random.Random) -> bool:
        """Kill one of the training workers, if there are any."""
        workers = self.workers
        return bool(workers) and _kill(dice.choice(sorted(workers)))

    def stop(self) -> None:
        """End both nodes."""
        self._cluster.shutdown()


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """A cluster that no other `ray.init` on this machine takes for its own."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # Not below pytest's folder: the path of a socket has 107 characters at most.
        with patch.dict(os.environ, {"RAY_TMPDIR": folder}):
            nodes = TwoNodes()
        try:
            yield nodes
        finally:
            nodes.stop()


class Driver:
    """A process that runs a stage, and ends with the block; what it says goes to a file in `folder`."""

    def __init__(self, config: Config, folder: Path, stage: str = "train") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._said = folder / "said.txt"
        self._said.touch()
        config_file = folder / "config.json"
        config_file.write_text(config.model_dump_json())
        command = [sys.executable, "-m", "tests.ray.training_driver", stage, str(config_file)]
        with self._said.open("a") as said:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=said)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def said(self) -> str:
        """What it has said so far."""
        return self._said.read_text()

    def require_running(self) -> None:
        """Fail with what it said if it has ended."""
        assert self._process.poll() is None, self.said[-3000:]

    def kill(self) -> None:
        """As the kernel would."""
        self._process.kill()
        self._process.wait()

    def finish(self, timeout_s: float = 600) -> None:
        """Wait for its end, which has to be a good one."""
        assert self._process.wait(timeout_s) == 0, self.said[-3000:]

    def until_checkpoint(self, run_uri: str) -> None:
        """Wait until the run has one."""
        self.until(lambda: has_checkpoint(run_uri))

    def until(self, is_so: Callable[[], bool], timeout_s: float = 600) -> None:
        """Wait until something is so."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            self.require_running()
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _node(num_cpus: int) -> dict[str, Any]:
    return {"num_cpus": num_cpus, "resources": {SLOT: 1}, "object_store_memory": STORE_BYTES}


def _raylet_of(node: Any) -> Any:
    (raylet,) = node.all_processes["raylet"]
    return raylet.process


def _raylet(node: Any) -> int:
    return int(_raylet_of(node).pid)


def _workers_of(node: Any) -> Iterator[int]:
    if node is None:
        return
    for pid in _children(_raylet(node)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if b"RayTrainWorker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    found.append(int(folder.name))
    return found


def _kill(pid: int) -> bool:
    """Whether it was still there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
