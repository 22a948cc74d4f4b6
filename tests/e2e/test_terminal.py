"""What a user sees on stderr: lines of raysys alone, from the start of a command to its end.

The service that the HTTP tests share is checked, too, when SIGTERM stops it, and so is the demo.
"""

from __future__ import annotations

import signal
from pathlib import Path

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
