"""The system clock jumps an hour forwards and backwards under a running service, whose monotonic clock goes on."""

from __future__ import annotations

import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from tests.e2e.load import Load, require_found
from tests.e2e.small import kill_one

SOURCE = Path(__file__).parents[1] / "data" / "stepped_clock.c"
HOUR_S = 3600
RETRY_S = 60.0


class SteppedClock:
    """The clock of the processes that are started with it; `step_to` moves it for all of them at once."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("cc")
        if compiler is None:
            pytest.skip("a C compiler is needed for the library that moves the clock: apt-get install gcc")
        self.preloaded, self.file = folder / "stepped_clock.so", folder / "offset"
        command = [compiler, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(self.preloaded), "-ldl"]
        subprocess.run(command, check=True)
        self.file.write_bytes(struct.pack("l", 0))

    def step_to(self, offset_s: int) -> None:
        with self.file.open("r+b") as stream:
            stream.write(struct.pack("l", offset_s))


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SteppedClock:
    clock = SteppedClock(tmp_path)
    monkeypatch.setenv("LD_PRELOAD", str(clock.preloaded))
    monkeypatch.setenv("STEPPED_CLOCK", str(clock.file))
    return clock


@pytest.mark.slow  # two minutes
@pytest.mark.parametrize("service", [{"encoder_replicas": 2}], indirect=True)
def test_clock_that_steps_fails_no_request_and_killed_processes_come_back(
    clock: SteppedClock, service: tuple[str, Path, int]
) -> None:
    url, _, pid = service
    for offset_s in (HOUR_S, -HOUR_S):
        with Load(url) as load:
            load.wait_for_requests()
            clock.step_to(offset_s)
            for _ in range(10):
                load.wait_for_requests()
        assert load.failures == load.retried == []
        require_found(url, load.acknowledged)
    for name in ("ServeReplica:raysys:Encoder", "bin/haproxy"):  # an hour before the service started
        with Load(url, RETRY_S) as load:
            load.wait_for_requests()
            kill_one(pid, name)
            load.wait_for_requests()
        assert load.failures == []
        print(f"{name}: the slowest {load.longest_s:.1f} s")
