"""Only one process at a time can lock a folder."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raysys.errors import Busy
from raysys.storage.lock import locked

HOLDER = """
import sys, time
from raysys.storage.lock import locked

with locked(sys.argv[1], "raysys pack"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_second_command_is_refused(tmp_path: Path) -> None:
    folder = f"{tmp_path}/runs/shop"
    with locked(folder, "raysys train"), pytest.raises(Busy) as caught, locked(folder, "raysys train"):
        pass
    assert str(caught.value) == (
        f"{folder}: another `raysys train` is running here; wait for it to end, or change `name` or `root`"
    )
    assert caught.value.exit_status == 1
    with locked(folder, "raysys train"):  # the first command has ended
        pass


def test_killed_holder_leaves_no_lock(tmp_path: Path) -> None:
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(Busy), locked(str(tmp_path), "raysys pack"):
        pass
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with locked(str(tmp_path), "raysys pack"):
        pass


def test_object_store_is_not_locked() -> None:
    with locked("s3://bucket/runs/shop", "raysys train"), locked("s3://bucket/runs/shop", "raysys train"):
        pass
