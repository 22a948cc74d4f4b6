"""Vectors that were made elsewhere: `raysys embed --vectors`, `raysys index --embeddings`, `raysys serve`."""

from __future__ import annotations

import json
import shutil
import signal
from pathlib import Path

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.e2e.conftest import STOP_TIMEOUT_S, CompletedRun, wait_until_ready
from tests.e2e.small import foreign_lines, free_port, kill_group, run_raysys, start_raysys, stored_vectors

DIMENSIONS = 5


@pytest.fixture
def root(completed_run: CompletedRun, tmp_path: Path) -> Path:
    """A copy of the shards only: the path needs neither an encoder nor the set of one."""
    shutil.copytree(completed_run.root / "shards", tmp_path / "root" / "shards")
    return tmp_path / "root"


def write_vectors(path: Path, item_ids: list[str]) -> dict[str, np.ndarray]:
    """Random vectors of the items and of another one, in another order; returns them at length 1."""
    rng = np.random.default_rng(0)
    ids = [*rng.permutation(item_ids).tolist(), "other"]
    vectors = rng.normal(size=(len(ids), DIMENSIONS)).astype(np.float32)
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), DIMENSIONS)
    pq.write_table(pa.table({"item_id": ids, "embedding": embedding}), path)
    return dict(zip(ids, vectors / np.linalg.norm(vectors, axis=1, keepdims=True), strict=True))


def test_other_vectors_are_indexed_and_served(completed_run: CompletedRun, root: Path) -> None:
    folder, source = root.parent, root.parent / "v.parquet"
    vectors = write_vectors(source, [*stored_vectors(completed_run.root)])
    common = (str(completed_run.config), f"root={root}")
    embed = run_raysys("embed", *common, "--vectors", str(source), "--to", "old", folder=folder)
    assert (embed.status, embed.stdout) == (0, f"{root}/embeddings/old\n"), embed.stderr
    assert "150 items have a vector of 5 dimensions, 0 have none; 1 vectors of other items" in embed.stderr
    assert foreign_lines(embed.stderr) == []
    index = run_raysys("index", *common, "--embeddings", "old", folder=folder)
    assert (index.status, index.stdout) == (0, f"{root}/indexes/old\n"), index.stderr

    port = free_port()
    url, log_stem = f"http://127.0.0.1:{port}/", folder / "serve"
    process = start_raysys("serve", *common, "index.embeddings=old", f"serve.port={port}", log_stem=log_stem)
    try:
        wait_until_ready(url, process, log_stem)
        with httpx.Client(base_url=url, timeout=30) as client:
            assert_serves(
                client, vectors, json.loads((root / "indexes/old/manifest.json").read_text())["space_id"]
            )
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
    finally:
        kill_group(process)
    assert process.returncode == 0, log_stem.with_suffix(".err").read_text()


def assert_serves(client: httpx.Client, vectors: dict[str, np.ndarray], space_id: str) -> None:
    item = client.get("/v1/items", params={"limit": 1}).json()["items"][0]
    shelf = client.get(f"/v1/items/{item['item_id']}/similar", params={"k": 100}).json()
    assert shelf["query"] == item
    for found in shelf["items"]:
        cosine = float(vectors[item["item_id"]] @ vectors[found["item_id"]])
        assert found["score"] == pytest.approx(cosine, abs=1e-5)
    assert client.get(item["image_url"]).headers["content-type"] == "image/jpeg"
    assert client.get("/readyz").json()["has_encoder"] is False
    refused = client.post("/v1/search", json={"text": "red dress"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "no_encoder")
    body = {"vector": vectors[item["item_id"]].tolist(), "space_id": space_id, "k": 1}
    assert client.post("/v1/search", json=body).json()["items"][0]["item_id"] == item["item_id"]
