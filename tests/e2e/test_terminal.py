"""What a user sees on stderr: lines of raysys alone, from the start of a command to its end.

The service that the HTTP tests share is checked, too, when SIGTERM stops it, and so is the demo.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.conftest import CompletedRun, wait_until_ready
from tests.e2e.small import foreign_lines, free_port, kill_group, start_raysys


def test_fresh_run_prints_only_lines_of_raysys(completed_run: CompletedRun) -> None:
    assert foreign_lines(completed_run.run.stderr) == []


def test_serve_prints_only_lines_of_raysys_when_ctrl_c_stops_it(
    completed_run: CompletedRun, tmp_path: Path
) -> None:
    port, stem = free_port(), tmp_path / "serve"
    process = start_raysys("serve", str(completed_run.config), f"serve.port={port}", log_stem=stem)
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/", process, stem)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
    finally:
        kill_group(process)
    assert foreign_lines(stem.with_suffix(".err").read_text()) == []


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
