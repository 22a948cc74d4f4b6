"""`kill -9` of driver, encoder or node at random moments of a delta run.

The old set stays until the new one has every item once.
"""

from __future__ import annotations

import dataclasses
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from raysys.artifacts import EmbeddingSetManifest, EncoderBundleManifest, open_artifact
from raysys.artifacts.embedding_set import read_embeddings, vectors_of
from raysys.encoder.bundle import open_bundle
from raysys.shards.reader import Item
from tests.embedding_sets import publish_set
from tests.factories import TINY, photo, tiny_bundle, write_shards
from tests.ray.two_nodes import TwoNodes, two_nodes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
NUM_SHARDS, PER_SHARD = 8, 5
NUM_ITEMS = NUM_SHARDS * PER_SHARD
MAX_KILLS = 4
ROOT = Path(__file__).parents[2]
ENCODER_PROCESS = "EmbeddingActor"


@pytest.fixture(scope="module")
def nodes() -> Iterator[TwoNodes]:
    with two_nodes() as nodes:
        yield nodes


@pytest.mark.parametrize("seed", range(20))
def test_killed_delta_run_keeps_the_old_set_and_embeds_every_item_once(
    nodes: TwoNodes, tmp_path: Path, seed: int
) -> None:
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

    killed: list[str] = []
    while True:
        nodes.add_second()
        command = [sys.executable, "-m", "tests.ray.embedding_driver", nodes.address]
        with (tmp_path / "errors").open("w") as errors:
            driver = subprocess.Popen(
                [*command, str(tmp_path / "job.json")], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=errors
            )
        until = num_parts() + rng.randint(1, 3)
        while driver.poll() is None and len(killed) < MAX_KILLS:
            while driver.poll() is None and num_parts() < until:
                time.sleep(0.01)
            time.sleep(rng.random() * 0.05)
            victim = rng.choice(["driver", "encoder", "node"])
            if driver.poll() is not None:
                break
            if victim == "driver":
                driver.kill()
            elif victim == "node":
                nodes.kill_second()
                nodes.add_second()
            elif not nodes.kill_one(nodes.processes(ENCODER_PROCESS), rng):
                continue
            killed.append(victim)
            until = num_parts() + rng.randint(1, 3)
        if driver.wait() == 0:
            break
        # It may also end with the loss of a node.
        assert driver.returncode < 0 or {"encoder", "node"} & {*killed}, (tmp_path / "errors").read_text()
        if open_artifact(uri, EmbeddingSetManifest) == old:
            assert len(read_embeddings(uri)) == len(old_items)
    print("killed:", *killed)
    assert killed
    manifest = open_artifact(uri, EmbeddingSetManifest)
    assert (manifest.num_items, manifest.num_carried_over, manifest.num_removed) == (NUM_ITEMS, len(known), 1)
    table = read_embeddings(uri)
    assert table.column("item_id").to_pylist() == [item.item_id for item in items]
    expected = open_bundle(encoder).embed_photos(photos)
    expected[known] = old_vectors[: len(known)]
    np.testing.assert_allclose(vectors_of(table), expected, atol=1e-5)
