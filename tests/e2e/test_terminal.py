"""What a user sees on stderr: lines of raysys alone, from the start of a command to its end."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path

import pytest

from tests.e2e.conftest import CompletedRun, wait_until_ready
from tests.e2e.small import SMALL, as_overrides, free_port, kill_group, start_raysys

SYSTEMS = "random|popularity|thumbnail|mobilenet_v2|zero_shot|fine_tuned|wise_ft|fine_tuned_pca|fine_tuned_pca_index"
# A stage's label is right-aligned in nine columns; the report's table begins in the first one.
OURS = re.compile(
    rf" *(pack|train|embed|index|evaluate|serve|query|report|page|draw|scan|write)  \S"
    rf"|({SYSTEMS}|rung|system) +\S|SIMULATED LOG: |Press Ctrl-C to stop\.$"
)


def foreign_lines(stderr: str) -> list[str]:
    return [line for line in stderr.splitlines() if not OURS.match(line)]


def test_a_fresh_run_prints_only_lines_of_its_own(completed_run: CompletedRun) -> None:
    assert foreign_lines(completed_run.run.stderr) == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_serve_prints_only_lines_of_its_own_when_a_signal_stops_it(
    completed_run: CompletedRun, tmp_path: Path, number: signal.Signals
) -> None:
    port = free_port()
    process = start_raysys(
        "serve", str(completed_run.config), f"serve.port={port}", log_stem=tmp_path / "serve"
    )
    try:
        wait_until_ready(f"http://127.0.0.1:{port}/", process, tmp_path / "serve")
        process.send_signal(number)
        assert process.wait(60) == 0
    finally:
        kill_group(process)
    assert foreign_lines((tmp_path / "serve.err").read_text()) == []


def test_the_demo_prints_only_lines_of_its_own(completed_run: CompletedRun, tmp_path: Path) -> None:
    shutil.copytree(completed_run.root, tmp_path / "root")
    shutil.rmtree(tmp_path / "root/embeddings")  # Ray Data's actor pools have warnings of their own
    words = [f"root={tmp_path / 'root'}", f"serve.port={free_port()}", *as_overrides(SMALL)]
    process = start_raysys("demo", "--exit", *words, log_stem=tmp_path / "demo")
    try:
        assert process.wait(240) == 0
    finally:
        kill_group(process)
    stderr = (tmp_path / "demo.err").read_text()
    assert "items/s" in stderr
    assert foreign_lines(stderr) == []
