"""Of two commands that would train the same run the second is refused, until the first has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raysys.errors import InputError
from raysys.train.run.lock import locked

HOLDER = "import sys, time; from raysys.train.run.lock import locked\nwith locked(sys.argv[1]): print('held', flush=True); time.sleep(60)"


def test_second_command_is_refused_in_one_line(tmp_path: Path) -> None:
    home = f"{tmp_path}/runs/shop"
    with locked(home), pytest.raises(InputError) as caught, locked(home):
        pass
    assert str(caught.value) == (
        f"{home}: another command trains it; wait for its end, or give this one another name"
    )
    with locked(home):  # the first one has ended
        pass


def test_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(InputError), locked(str(tmp_path)):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with locked(str(tmp_path)):
        pass


def test_run_in_a_store_is_not_locked_by_a_file() -> None:
    with locked("s3://bucket/runs/shop"), locked("s3://bucket/runs/shop"):
        pass
