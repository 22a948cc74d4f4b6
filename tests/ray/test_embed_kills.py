"""`kill -9` of a delta run at random moments: the old set stays until the new one has every item once."""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import ray

from raysys.artifacts import EmbeddingSetManifest, EncoderBundleManifest, open_artifact
from raysys.artifacts.embedding_set import read_embeddings, vectors_of
from raysys.encoder.bundle import open_bundle
from raysys.shards.reader import Item
from tests.embedding_sets import publish_set
from tests.factories import TINY, photo, tiny_bundle, write_shards

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
NUM_SHARDS, PER_SHARD = 8, 5
NUM_ITEMS = NUM_SHARDS * PER_SHARD
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("seed", range(3))
def test_killed_delta_run_keeps_the_old_set_and_embeds_every_item_once(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    encoder = tiny_bundle(tmp_path / "encoder", ["red cup", "blue cup"])
    photos = [photo((number * 6, 100, 250 - number * 6)) for number in range(NUM_ITEMS)]
    items = [Item(f"i{number}", "cup", image) for number, image in enumerate(photos)]
    shards = write_shards(tmp_path / "shards", items, PER_SHARD)
    known = [number for number in range(NUM_ITEMS) if number % 3]
    old_items = [(f"i{number}", photos[number]) for number in known] + [("gone", b"no photo")]
    uri = str(tmp_path / "set")
    basis = np.eye(TINY.hidden_size, dtype=np.float32)  # vectors that the encoder does not compute
    old_vectors = basis[np.arange(len(old_items)) % TINY.hidden_size]
    space_id = open_artifact(encoder, EncoderBundleManifest).space_id
    old = publish_set(uri, {"train-a-0.parquet": old_items}, old_vectors, space_id=space_id)
    content = {"uri": uri, "encoder": encoder, "shards": [dataclasses.asdict(shard) for shard in shards]}
    (tmp_path / "job.json").write_text(json.dumps(content))

    def num_parts() -> int:
        return sum(path.name.startswith("train-0") for path in Path(uri).glob("version-*/*.parquet"))

    kills = 0
    while True:
        command = [sys.executable, "-m", "tests.ray.embedding_driver"]
        command += [ray.get_runtime_context().gcs_address, str(tmp_path / "job.json")]
        with (tmp_path / "errors").open("w") as errors:
            driver = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors)
        until = num_parts() + rng.randint(1, 3)
        while driver.poll() is None and (num_parts() < until or kills >= 4):
            time.sleep(0.01)
        time.sleep(rng.random() * 0.05)
        if driver.poll() is None:
            driver.kill()
            driver.wait()
            kills += 1
        elif driver.returncode == 0:
            break
        else:
            raise AssertionError((tmp_path / "errors").read_text()[-3000:])
        if open_artifact(uri, EmbeddingSetManifest) == old:
            assert len(read_embeddings(uri)) == len(old_items)
    assert kills
    manifest = open_artifact(uri, EmbeddingSetManifest)
    assert (manifest.num_items, manifest.num_carried_over, manifest.num_removed) == (NUM_ITEMS, len(known), 1)
    table = read_embeddings(uri)
    assert table.column("item_id").to_pylist() == [item.item_id for item in items]
    expected = open_bundle(encoder).embed_photos(photos)
    expected[known] = old_vectors[: len(known)]
    np.testing.assert_allclose(vectors_of(table), expected, atol=1e-5)
