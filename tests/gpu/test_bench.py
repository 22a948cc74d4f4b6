"""`raysys bench train` and `raysys bench embed` on a GPU, with little data."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any


def result_of(bench: str, tmp_path: Path) -> Any:
    """The only case of a quick benchmark."""
    command = [sys.executable, "-m", "raysys", "bench", bench, "--quick", "--json"]
    finished = subprocess.run(
        [*command, "tracking.mode=disabled"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    (result,) = json.loads(finished.stdout)["results"]
    return result


def test_bench_train_reports_the_share_of_the_peak(tmp_path: Path) -> None:
    result = result_of("train", tmp_path)
    assert result["case"] == "B/16-256"
    assert result["contenders"]["raysys"]["rate"]["median"] > 0


def test_bench_embed_runs_the_large_model_compiled_in_bf16(tmp_path: Path) -> None:
    result = result_of("embed", tmp_path)
    assert result["case"] == "B/16-256, 0.05 Mpx"
    assert result["properties"]["on_gpu"] == 1.0
    assert 0 < result["contenders"]["raysys embed"]["metrics"]["encoder_busy"]["median"] <= 1.01
