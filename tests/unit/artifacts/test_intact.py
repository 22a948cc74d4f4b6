"""Damaged files of every kind of artifact: one line with the file's URI and the command that makes it again."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts, storage
from raysys.artifacts import (
    ArtifactSpec,
    CatalogManifest,
    EmbeddingSetManifest,
    EncoderBundleManifest,
    IndexBundleManifest,
    ShardSetManifest,
)
from raysys.artifacts.embedding_set import read_embeddings, refused_ids
from raysys.artifacts.intact import damage_named, require_intact
from raysys.columns import LEDGER_SCHEMA, embedding_schema
from raysys.config.schema import IndexConfig
from raysys.encoder.bundle import open_bundle, preprocessing_of
from raysys.errors import DamagedData, SpaceMismatch
from raysys.evaluate.items import read_latent
from raysys.index.build import publish_index
from raysys.index.search import Searcher
from raysys.shards.reader import Item, ShardRef, live_keys, open_shard
from tests.factories import tiny_bundle, write_shard

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "flipped": lambda data: data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 0xFF]) + data[len(data) // 2 + 1 :],
    "truncated": lambda data: data[:-9],
    "empty": lambda data: b"",
    "deleted": lambda data: None,
}  # fmt: skip


def publish_tables(
    uri: Path, kind: type[artifacts.Manifest], tables: dict[str, pa.Table], **fields: object
) -> None:
    spec = ArtifactSpec(str(uri), kind, {}, {})
    artifacts.begin(spec)
    for name, table in tables.items():
        pq.write_table(table, uri / name, write_page_checksum=True)
    common = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), 40, 0.0)
    artifacts.publish(spec.uri, kind(**common, **fields))


PACKED = [Item(f"i{number}", "a cup", b"photo") for number in range(40)]


def read_changed_shard(uri: str) -> None:
    """Read the table of items, which a tar that differs from its manifest needs."""
    with open_shard(ShardRef(f"{uri}/00000.tar", "train", len(PACKED), 1, "0" * 64)):
        pass


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One artifact of every kind that has files."""
    root = tmp_path_factory.mktemp("intact")
    vectors = np.random.default_rng(0).normal(size=(40, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows = [
        {"item_id": f"i{number}", "title": "a cup", "attributes": "{}", "split": "train", "shard": "a.tar",
         "image_offset": 0, "image_bytes": 0, "content_hash": "", "embedding": vector.tolist()}
        for number, vector in enumerate(vectors)
    ]  # fmt: skip
    refused = [
        {"item_id": f"j{number}", "reason": "missing", "detail": "", "source": ""} for number in range(9)
    ]
    publish_tables(
        root / "embeddings",
        EmbeddingSetManifest,
        {
            "train-0.parquet": pa.Table.from_pylist(rows, schema=embedding_schema(4)),
            "ledger.parquet": pa.Table.from_pylist(refused, schema=LEDGER_SCHEMA),
        },
        space_id="s" * 64,
        dimensions=4,
    )
    publish_index(
        ArtifactSpec(str(root / "index"), IndexBundleManifest, {}, {}),
        str(root / "embeddings"),
        IndexConfig(),
    )
    inherited = pa.table(
        {"shard": [f"s3://shop/{number}.tar" for number in range(99)], "item_id": ["a"] * 99}
    )
    publish_tables(
        root / "shards", ShardSetManifest, {"items.parquet": inherited}, split="train", shards=[],
        item_schema={}, num_rows=0, num_refused=0, refused_by_reason={},
    )  # fmt: skip
    packed = root / "packed"
    write_shard(packed, PACKED)
    items = pq.read_table(packed / "items.parquet")
    publish_tables(
        packed, ShardSetManifest, {"items.parquet": items}, split="train", shards=[],
        item_schema={}, num_rows=0, num_refused=0, refused_by_reason={},
    )  # fmt: skip
    write_shard(packed, PACKED)  # beside the published table, which has the same bytes
    latent = pa.table({"item_id": [f"i{number}" for number in range(40)], "kind": ["cup"] * 40})
    publish_tables(root / "catalog", CatalogManifest, {"latent.parquet": latent})
    tiny_bundle(root / "encoder", ["red cup", "blue cup"])
    return root


READERS: dict[str, tuple[str, str, Callable[[str], object]]] = {
    "embedding part": ("embeddings/train-0.parquet", "raysys embed", read_embeddings),
    "ledger": ("embeddings/ledger.parquet", "raysys embed", refused_ids),
    "faiss": ("index/*/shard-00000.faiss", "raysys index", Searcher),
    "items of an index": ("index/*/items-00000.arrow", "raysys index", Searcher),
    "items of a ShardSet": ("packed/items.parquet", "raysys pack", read_changed_shard),
    "items of inherited tars": ("shards/items.parquet", "raysys pack", lambda uri: live_keys(ShardRef("s3://shop/7.tar", items_uri=f"{uri}/items.parquet"))),
    "latent attributes": ("catalog/latent.parquet", "raysys pack", lambda uri: read_latent(f"{uri}/latent.parquet", ["i1"])),
    "weights": ("encoder/model.safetensors", "raysys train", open_bundle),
    "configuration": ("encoder/config.json", "raysys train", open_bundle),
    "tokenizer": ("encoder/spiece.model", "raysys train", open_bundle),
    "image processor": ("encoder/processor_config.json", "raysys train", preprocessing_of),
}  # fmt: skip


# Without the table of items, `raysys verify --repair` is the remedy.
FOUND_ELSEWHERE = [("items of a ShardSet", "deleted")]
# Weights and settings that changed and can be read make another space.
OTHER_SPACE = ("weights", "tokenizer")


@pytest.mark.parametrize(
    ("reader", "damage"),
    [(reader, damage) for reader in READERS for damage in DAMAGES if (reader, damage) not in FOUND_ELSEWHERE],
)
def test_damaged_file_is_named_with_its_remedy(
    intact: Path, tmp_path: Path, reader: str, damage: str
) -> None:
    name, command, read = READERS[reader]
    shutil.copytree(intact, tmp_path / "root")
    (path,) = (tmp_path / "root").glob(name)
    artifact = tmp_path / "root" / name.split("/")[0]
    read(str(artifact))  # intact so far
    data = DAMAGES[damage](path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    expected = SpaceMismatch if reader in OTHER_SPACE and damage == "flipped" else DamagedData
    with pytest.raises(expected) as caught:
        read(str(artifact))
    message = str(caught.value)
    assert str(path) in message
    remedies = {  # a stage sees another size by itself
        f"; delete {artifact}, then run `{command}` again",
        f"; `{command}` makes it again",
    }
    assert any(message.endswith(remedy) for remedy in remedies), message
    assert "\n" not in message


def test_weights_that_a_flipped_bit_changed_are_refused_as_another_space(
    intact: Path, tmp_path: Path
) -> None:
    shutil.copytree(intact / "encoder", tmp_path / "encoder")
    weights = tmp_path / "encoder" / "model.safetensors"
    weights.write_bytes(DAMAGES["flipped"](weights.read_bytes()) or b"")
    with pytest.raises(
        SpaceMismatch, match=r"manifest is of .*; .*model\.safetensors: damaged, its SHA-256 differs"
    ):
        open_bundle(str(weights.parent))


def test_unreadable_file_with_the_published_hash_says_so(tmp_path: Path) -> None:
    # Published damaged: no copy of it is better.
    publish_tables(tmp_path / "catalog", CatalogManifest, {})
    spec = ArtifactSpec(str(tmp_path / "catalog"), CatalogManifest, {"a": 1}, {})
    artifacts.begin(spec)
    storage.write_bytes(f"{spec.uri}/latent.parquet", b"no table")
    artifacts.publish(
        spec.uri, CatalogManifest(**artifacts.common_fields(spec, artifacts.describe_files(spec.uri), 1, 0.0))
    )
    with pytest.raises(DamagedData) as caught:
        read_latent(f"{spec.uri}/latent.parquet", [])
    assert str(caught.value).startswith(f"{spec.uri}/latent.parquet: cannot be read (")
    assert str(caught.value).endswith(
        f"; its SHA-256 equals the manifest); delete {spec.uri}, then run `raysys pack` again"
    )


def test_errors_of_raysys_pass_unless_a_file_is_damaged(intact: Path) -> None:
    with (
        pytest.raises(SpaceMismatch, match="^two spaces; embed again$"),
        damage_named(str(intact / "encoder"), EncoderBundleManifest),
    ):
        raise SpaceMismatch("two spaces; embed again")


def test_damaged_projected_encoder_is_made_again_by_embed(tmp_path: Path) -> None:
    spec = ArtifactSpec(
        str(tmp_path),
        EncoderBundleManifest,
        {},
        {"embeddings": artifacts.InputEntry(uri="e", fingerprint="f")},
    )
    storage.write_bytes(f"{spec.uri}/config.json", b"{}")
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), 1, 0.0)
    manifest = EncoderBundleManifest(
        **fields, space_id="s", dimensions=1, parent_space_id=None, training_run=None, text={}
    )
    storage.write_bytes(f"{spec.uri}/config.json", b"[]")
    with pytest.raises(DamagedData, match=r"config\.json: damaged.* run `raysys embed` again$"):
        require_intact(spec.uri, manifest)
