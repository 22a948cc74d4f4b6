"""A cluster of two nodes on this machine and a driver that works on it; both can be killed in part."""

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
from tests.ray.training_driver import SLOT
from tests.ray.training_runs import has_checkpoint

ROOT = Path(__file__).parents[2]
STORE_BYTES = 150 * 2**20
# Ray detects a lost node after two seconds instead of twenty.
HEALTH_CHECKS = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 5000,  # a busy machine may be slow to answer
    "health_check_failure_threshold": 4,
}


class TwoNodes:
    """A head node, where drivers run, and a second node; each takes one training worker."""

    def __init__(self) -> None:
        head = {"include_dashboard": False, "_system_config": HEALTH_CHECKS, **_node(4)}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._second: Any = None
        self.add_second()

    @property
    def address(self) -> str:
        """The address that drivers connect to."""
        return str(self._cluster.address)

    @property
    def workers(self) -> list[int]:
        """The process ids of the running training workers of both nodes."""
        return self.processes("RayTrainWorker")

    def processes(self, name: str) -> list[int]:
        """The process ids of both nodes whose command line, which Ray sets, contains `name`."""
        return [pid for node in (self._cluster.head_node, self._second) for pid in _processes_of(node, name)]

    def add_second(self) -> None:
        """Start the second node unless it runs; call it from the main thread."""
        if self._second is None:
            self._second = self._cluster.add_node(
                # A different address: a driver runs on the node with the address of the machine.
                node_ip_address="127.0.0.2",
                **_node(2),
            )

    def kill_second(self) -> None:
        """Kill the second node as a power cut does: Ray and all workers at once."""
        pids = _children(_raylet_pid(self._second))
        self._cluster.remove_node(self._second, allow_graceful=False)
        self._second = None
        for pid in pids:
            _kill(pid)

    def announce_preemption(self, seconds: int) -> None:
        """Announce to Ray, as a cloud does, that the second node will be preempted after `seconds`."""
        command = [
            *("ray", "drain-node", "--address", self.address, "--node-id", self._second.node_id),
            *("--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "preempted by the test"),
            *("--deadline-remaining-seconds", str(seconds)),
        ]
        subprocess.run([Path(sys.executable).with_name(command[0]), *command[1:]], check=True)

    def has_second_ended(self) -> bool:
        """Whether Ray on the second node has ended, as it does after the deadline of a preemption."""
        return _raylet(self._second).poll() is not None

    def kill_a_worker(self, rng: random.Random) -> bool:
        """Kill a random training worker. False if there is none."""
        return self.kill_one(self.workers, rng)

    @staticmethod
    def kill_one(pids: list[int], rng: random.Random) -> bool:
        """Kill one of these processes. False if there is none."""
        return bool(pids) and _kill(rng.choice(sorted(pids)))

    def stop(self) -> None:
        """Stop both nodes."""
        self._cluster.shutdown()


@contextlib.contextmanager
def two_nodes() -> Iterator[TwoNodes]:
    """A cluster that other `ray.init` calls on this machine do not connect to."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        # Not below pytest's folder: the path of a socket is limited to 107 characters.
        with patch.dict(os.environ, {"RAY_TMPDIR": folder}):
            nodes = TwoNodes()
        try:
            yield nodes
        finally:
            nodes.stop()


class Driver:
    """A process that runs a stage; killed when the block ends. Its output goes to a file in `folder`."""

    def __init__(self, config: Config, folder: Path, stage: str = "train") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._output = folder / "output.txt"
        self._output.touch()
        config_file = folder / "config.json"
        config_file.write_text(config.model_dump_json())
        command = [sys.executable, "-m", "tests.ray.training_driver", stage, str(config_file)]
        with self._output.open("a") as file:
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        """Its output so far."""
        return self._output.read_text()

    def require_running(self) -> None:
        """Fail with its output if it has ended."""
        assert self._process.poll() is None, self.output[-3000:]

    def kill(self) -> None:
        """End the process with SIGKILL."""
        self._process.kill()
        self._process.wait()

    def finish(self, timeout_s: float = 600) -> None:
        """Wait for its end; fail unless it succeeded."""
        assert self._process.wait(timeout_s) == 0, self.output[-3000:]

    def wait_for_checkpoint(self, run_uri: str) -> None:
        """Wait until the run has a checkpoint."""
        self.wait_until(lambda: has_checkpoint(run_uri))

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 600) -> None:
        """Wait until `condition` returns True; fail if the process ends first."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            self.require_running()
            assert time.monotonic() < deadline
            time.sleep(0.02)


def _node(num_cpus: int) -> dict[str, Any]:
    return {"num_cpus": num_cpus, "resources": {SLOT: 1}, "object_store_memory": STORE_BYTES}


def _raylet(node: Any) -> Any:
    (raylet,) = node.all_processes["raylet"]
    return raylet.process


def _raylet_pid(node: Any) -> int:
    return int(_raylet(node).pid)


def _processes_of(node: Any, name: str) -> Iterator[int]:
    if node is None:
        return
    for pid in _children(_raylet_pid(node)):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if name.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                yield pid


def _children(parent: int) -> list[int]:
    pids = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if int((folder / "stat").read_text().rpartition(")")[2].split()[1]) == parent:
                    pids.append(int(folder.name))
    return pids


def _kill(pid: int) -> bool:
    """Whether the process was still running."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
