"""`raysys demo` without a terminal, with overrides, on a copy of a completed run."""

from __future__ import annotations

import shutil
from pathlib import Path

import httpx
import pytest

from tests.e2e.conftest import CompletedRun
from tests.e2e.small import SMALL, as_overrides, foreign_lines, free_port, run_raysys


def test_demo_serves_queries_and_exits(completed_run: CompletedRun, tmp_path: Path) -> None:
    root, port = tmp_path / "root", free_port()
    shutil.copytree(completed_run.root, root)
    overrides = [f"root={root}", f"serve.port={port}", *as_overrides(SMALL)]
    demo = run_raysys("demo", "--exit", *overrides, folder=tmp_path)

    assert demo.status == 0, demo.stderr
    assert demo.stdout == f"http://127.0.0.1:{port}/\n"
    lines = demo.stderr.splitlines()
    assert foreign_lines(demo.stderr) == []
    num_skipped = sum("up to date: skipped" in line for line in lines)
    assert num_skipped == 5  # because the overrides equal the file's settings
    labels = [line.split()[0] for line in lines]
    # An item, its photo and five texts; a listing that comes and goes; then the three commands for another
    # catalogue, under a heading.
    assert labels[0] == "demo"
    assert labels[-16:] == ["serve", *["query"] * 7, *["change"] * 2, "report", "page", *["next"] * 4]
    assert [line.split(": ")[1].split(" after")[0] for line in lines if " just-listed " in line] == [
        "found", "no longer found",
    ]  # fmt: skip
    assert f"{root}/reports/small/report.html" in demo.stderr
    photo_query = next(line for line in lines if "photo of this item" in line)
    assert "(1.00)" in photo_query  # the photo of an item finds that item
    for text in ("red dress", "赤 ワンピース"):
        assert any(f"text: {text}  ->  " in line for line in lines)
    assert "raysys serve configs/my.yaml" in lines[-1]
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/readyz")
