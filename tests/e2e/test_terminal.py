"""What a user sees on stderr: lines of raysys alone, from the start of a command to its end.

Services are checked, too: the one that the HTTP tests share when SIGTERM stops it, the last one of `test_changes.py`
when Ctrl-C does; and so is the demo.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.e2e.conftest import CompletedRun
from tests.e2e.small import foreign_lines


def test_fresh_run_prints_only_lines_of_raysys(completed_run: CompletedRun) -> None:
    assert foreign_lines(completed_run.run.stderr) == []


@pytest.mark.parametrize("debug", ["", "1"])
@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("a red\x1b[2J dress", r"ValueError: a red\x1b[2J dress"),
        ("99 %\rall healthy", r"ValueError: 99 %\rall healthy"),
        ("\x9b31m\u202e\udce9赤", r"ValueError: \x9b31m\u202e\udce9赤"),
    ],
)
def test_unforeseen_traceback_cannot_control_the_terminal(message: str, shown: str, debug: str) -> None:
    program = f"""
import sys
from raysys import cli, commands
def load_config(*_):
    raise ValueError({message!a})
commands.load_config = load_config
sys.argv = ["raysys", "config", "a.yaml"]
sys.exit(cli.run())
"""
    finished = subprocess.run(
        [sys.executable, "-X", "utf8", "-c", program],
        capture_output=True,
        check=False,
        env={**os.environ, "RAYSYS_DEBUG": debug},
        timeout=60,
    )
    lines = finished.stderr.decode().split("\n")
    assert (finished.returncode, finished.stdout) == (1, b"")
    assert (lines[0], lines[-2:]) == ("Traceback (most recent call last):", [shown, ""])
