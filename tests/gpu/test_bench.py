"""`raysys bench train` on a GPU, with few pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def test_bench_train_reports_the_share_of_the_peak(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "raysys", "bench", "train", "--quick", "--json"]
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
    assert result["case"] == "B/16-256"
    assert result["contenders"]["raysys"]["rate"]["median"] > 0
