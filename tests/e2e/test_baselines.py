"""`raysys evaluate` with vectors of another encoder: a system of the report, and what all lifts are against."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import CompletedRun
from tests.e2e.small import CompletedCommand, run_raysys


@pytest.fixture(scope="module")
def root(completed_run: CompletedRun, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the artifacts, whose report may be replaced."""
    root = tmp_path_factory.mktemp("baselines") / "root"
    shutil.copytree(completed_run.root, root, ignore=shutil.ignore_patterns("images", "runs"))
    return root


def evaluate(completed_run: CompletedRun, root: Path, uri: Path | str) -> CompletedCommand:
    return run_raysys(
        "evaluate", str(completed_run.config), f"root={root}",
        f"evaluate.baselines=[{{name: production, embeddings: {uri}}}]", "evaluate.compare_to=production",
        folder=root.parent,
    )  # fmt: skip


def report(root: Path) -> Any:
    return json.loads((root / "reports" / "small" / "report.json").read_text())


def test_vectors_of_the_delivered_encoder_are_as_good_as_it(completed_run: CompletedRun, root: Path) -> None:
    finished = evaluate(completed_run, root, root / "embeddings" / "small")
    assert finished.status == 0, finished.stderr
    rungs = {rung["name"]: rung for rung in report(root)["rungs"]}
    assert [*rungs][3:6] == ["mobilenet_v2", "production", "zero_shot"]
    assert rungs["production"]["metrics"] == rungs["wise_ft"]["metrics"]
    assert "lift_vs_production" not in rungs["production"]
    assert rungs["wise_ft"]["lift_vs_production"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    recalls = report(root)["index"]["recall"]
    assert 0.9 <= recalls["recall@10"]["low"] <= recalls["recall@10"]["value"] <= 1
    again = evaluate(completed_run, root, root / "embeddings" / "small")
    assert "skipped" in again.stderr


def test_items_that_the_baseline_lacks_are_counted(completed_run: CompletedRun, root: Path) -> None:
    files = sorted((root / "embeddings" / "small").glob("version-*/test*.parquet"))
    ids = [item_id for path in files for item_id in pq.read_table(path).column("item_id").to_pylist()]
    vectors = np.random.default_rng(0).normal(size=(len(ids) - 1, 3)).astype(np.float16)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 3)
    pq.write_table(pa.table({"item_id": ids[1:], "embedding": embedding}), root.parent / "v.parquet")
    finished = evaluate(completed_run, root, root.parent / "v.parquet")
    assert finished.status == 0, finished.stderr
    expected = f"production has no vectors of 1 of {len(ids)} items of the evaluation (first '{ids[0]}')"
    assert f"WARNING: {expected}; all systems are compared without them." in finished.stderr
    assert report(root)["warnings"][0].startswith(expected)


def test_bad_vectors_stop_with_one_line_and_keep_the_report(completed_run: CompletedRun, root: Path) -> None:
    before = report(root)
    ids = ["a", "b"]
    pq.write_table(pa.table({"item_id": ids, "embedding": [[1.0], [2.0]]}), root.parent / "few.parquet")
    for uri, message in (
        (root / "none.parquet", "none.parquet: no such vectors"),
        (root.parent / "few.parquet", "few.parquet has no vectors of"),
    ):
        finished = evaluate(completed_run, root, uri)
        assert (finished.status, finished.stdout) == (2, "")
        (line,) = finished.stderr.splitlines()
        assert message in line
    assert report(root) == before
