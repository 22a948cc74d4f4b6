"""The complete pipeline with its root in a bucket, over an unreliable network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raysys import storage
from tests.e2e.small import NAME, run_raysys, write_config
from tests.s3 import faulty_proxy, make_bucket


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_stage_works_in_a_bucket(
    s3_server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_bucket(s3_server, "path")
    config = write_config(tmp_path, {"root": "s3://path/raysys"})
    with faulty_proxy(s3_server, every=20) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        finished = run_raysys("run", str(config), folder=tmp_path, timeout_s=600)
        assert finished.status == 0, finished.stderr
        assert sum(proxy.injected.values()) > 20
        manifest = json.loads(storage.read_bytes(f"s3://path/raysys/indexes/{NAME}/manifest.json"))
        assert manifest["num_items"] == 150
        runs = storage.list_files("s3://path/raysys/runs")
        assert [name for name in runs if name.endswith("state.pt")]
        assert [name for name in runs if name.endswith(".wandb")]
        again = run_raysys("run", str(config), folder=tmp_path, timeout_s=280)
    assert again.status == 0, again.stderr
    assert all("skipped" in line for line in again.stage_lines), again.stage_lines
    assert not Path("s3:").exists()
