"""Fitting and applying the PCA: equal vectors, a vector without a projection, a damaged encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, EncoderBundleManifest
from raysys.artifacts.embedding_set import read_embeddings, refused_ids
from raysys.columns import embedding_schema
from raysys.config.schema import ProjectionConfig
from raysys.embed import job
from raysys.embed.pca import publish_projected_embeddings, publish_projected_encoder
from raysys.encoder.bundle import publish_bundle
from raysys.encoder.projection import Projection
from raysys.encoder.text import TextPreprocessing
from raysys.errors import DamagedData, InputError
from tests.factories import TINY, tiny_bundle, tiny_checkpoint

DIMENSIONS = 16  # of the small encoder
AXES = np.eye(DIMENSIONS, dtype=np.float32)


def publish_embeddings(folder: Path, vectors: np.ndarray) -> str:
    rows = [
        {"item_id": f"i{number}", "title": "", "attributes": "{}", "split": "train", "shard": "s3://shop/7.tar",
         "image_offset": 0, "image_bytes": 0, "content_hash": "", "embedding": vector}
        for number, vector in enumerate(vectors.tolist())
    ]  # fmt: skip
    spec = ArtifactSpec(str(folder), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    pq.write_table(
        pa.Table.from_pylist(rows, schema=embedding_schema(DIMENSIONS)), folder / "train-0.parquet"
    )
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), len(rows), 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id="s", dimensions=DIMENSIONS))
    return spec.uri


def fit(root: Path, vectors: np.ndarray) -> None:
    embeddings_uri = publish_embeddings(root / "embeddings", vectors)
    spec = ArtifactSpec(str(root / "pca"), EncoderBundleManifest, {}, {})
    publish_projected_encoder(
        spec, str(root / "encoder"), embeddings_uri, ProjectionConfig(dimensions=1), map
    )


@pytest.mark.parametrize("num", [1, 7])
def test_equal_vectors_have_no_direction(tmp_path: Path, num: int) -> None:
    tiny_bundle(tmp_path / "encoder", ["red cup", "blue cup"])
    with pytest.raises(InputError, match=f"the {num} vectors of the train split are equal, so a PCA has no"):
        fit(tmp_path, np.repeat(AXES[:1], num, axis=0))


def test_damaged_weights_do_not_become_a_projected_encoder(tmp_path: Path) -> None:
    weights = Path(tiny_bundle(tmp_path / "encoder", ["red cup", "blue cup"]), "model.safetensors")
    data = bytearray(weights.read_bytes())
    data[-1] ^= 0xFF
    weights.write_bytes(data)
    with pytest.raises(
        DamagedData, match=r"model\.safetensors: damaged, its SHA-256 differs .*`raysys train` again$"
    ):
        fit(tmp_path, AXES)
    assert not (tmp_path / "pca").exists()


@pytest.mark.parametrize("max_bad_fraction", [0.0, 0.5])
def test_item_without_a_projection_counts_against_the_limit(tmp_path: Path, max_bad_fraction: float) -> None:
    def write_files(folder: Path) -> None:
        tiny_checkpoint(folder, ["red cup", "blue cup"])
        Projection(np.zeros(DIMENSIONS, np.float32), AXES[:2]).save(folder)  # keeps the first two axes

    encoder = ArtifactSpec(str(tmp_path / "pca"), EncoderBundleManifest, {}, {})
    publish_bundle(encoder, write_files, text=TextPreprocessing(TINY.max_length))
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", AXES[[0, 5, 1]])
    spec = ArtifactSpec(str(tmp_path / "projected"), EmbeddingSetManifest, {}, {})
    if not max_bad_fraction:
        with pytest.raises(
            DamagedData, match=r"s3://shop/7\.tar: has 1 of the 1 items \(of 3\).*i1: bad_vector: "
        ):
            publish_projected_embeddings(spec, embeddings_uri, encoder.uri, map, max_bad_fraction=0.0)
        return
    manifest = publish_projected_embeddings(
        spec, embeddings_uri, encoder.uri, map, max_bad_fraction=max_bad_fraction
    )
    assert (manifest.num_items, manifest.num_refused) == (2, 1)
    assert read_embeddings(spec.uri).column("item_id").to_pylist() == ["i0", "i2"]
    assert refused_ids(spec.uri) == {"i1"}


def test_encoder_without_a_usable_vector_is_named() -> None:
    bad = {"item_id": "a", "reason": "bad_vector", "detail": "its vector has a NaN", "source": "x.tar"}
    missing = {"item_id": "b", "reason": "missing", "detail": "cut off", "source": "x.tar"}
    job.require_usable_encoder("encoders/a", [missing], num_embedded=0)
    job.require_usable_encoder("encoders/a", [missing, bad], num_embedded=1)
    with pytest.raises(DamagedData) as caught:
        job.require_usable_encoder("encoders/a", [missing, bad], num_embedded=0)
    assert str(caught.value) == (
        "encoders/a: none of its 1 vectors is usable (first: item 'a': its vector has a NaN); its weights are the "
        "likely cause: delete it, then run `raysys train` again, or start from another checkpoint"
    )
