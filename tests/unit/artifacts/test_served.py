"""Exact versions of an encoder and an index: named, kept, and found again."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EncoderBundleManifest, IndexBundleManifest
from raysys.artifacts.layout import ArtifactLayout
from raysys.artifacts.served import (
    Served,
    ServedPair,
    exact_version,
    is_available,
    newest_pair,
    published_pair,
    read_served,
    write_served,
)
from raysys.config.schema import IndexConfig
from raysys.encoder.bundle import open_bundle
from raysys.errors import DamagedData, SpaceMismatch
from raysys.index.build import publish_index
from raysys.index.search import Searcher
from tests.factories import tiny_bundle
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors


def pair(
    generation: int, index_uri: str = "/data/indexes/x/version-1", encoder_uri: str | None = None
) -> ServedPair:
    return ServedPair(
        generation=generation,
        encoder_uri=encoder_uri,
        index_uri=index_uri,
        space_id="5" * 64,
        index_version="1",
    )


def index(root: Path, seed: int) -> str:
    """Publish another index at the same URI, and return the URI of its exact version."""
    embeddings = publish_embeddings(root / "embeddings" / "x", unit_vectors(30, seed=seed))
    spec = ArtifactSpec(str(root / "indexes" / "x"), IndexBundleManifest, {"seed": seed}, {})
    return exact_version(spec.uri, publish_index(spec, embeddings, IndexConfig(kind="exact")))


def encoder(root: Path, seed: int) -> str:
    uri = tiny_bundle(root / "encoders" / "x", ["a cup"], seed=seed)
    return exact_version(uri, artifacts.open_artifact(uri, EncoderBundleManifest))


def test_version_before_stays_and_opens_until_the_publication_after_next(tmp_path: Path) -> None:
    first, second = index(tmp_path, 1), index(tmp_path, 2)
    assert first.startswith(f"{tmp_path}/indexes/x/version-")
    assert Searcher(first).version != Searcher(second).version
    index(tmp_path, 3)
    assert not Path(first).exists()
    assert Path(second).exists()


def test_encoder_is_a_plain_checkpoint_and_its_version_before_stays(tmp_path: Path) -> None:
    first = encoder(tmp_path, 1)
    space_id = open_bundle(first).space_id
    second = encoder(tmp_path, 2)
    assert open_bundle(first).space_id == space_id != open_bundle(second).space_id
    assert open_bundle(str(tmp_path / "encoders" / "x")).space_id == open_bundle(second).space_id
    assert "model.safetensors" in storage.list_files(f"{tmp_path}/encoders/x")
    encoder(tmp_path, 3)
    assert not Path(first).exists()
    assert Path(second).exists()


def test_versions_of_a_service_stay(tmp_path: Path) -> None:
    layout = ArtifactLayout(str(tmp_path), "x")
    served = pair(1, index(tmp_path, 1), encoder(tmp_path, 1))
    write_served(layout.served("x"), Served(active=pair(2), previous=served))
    for seed in (2, 3, 4):
        index(tmp_path, seed)
        encoder(tmp_path, seed)
    assert is_available(served)
    assert len(list((tmp_path / "indexes" / "x").glob("version-*"))) == 3
    storage.delete(layout.served("x"))
    index(tmp_path, 5)
    assert not is_available(served)


def test_published_pair_has_exact_versions_of_one_space(tmp_path: Path) -> None:
    version = encoder(tmp_path, 1)
    bundle = artifacts.open_artifact(version, EncoderBundleManifest)
    manifest = Path(publish_embeddings(tmp_path / "embeddings" / "x", unit_vectors(30)), "manifest.json")
    manifest.write_text(manifest.read_text("utf-8").replace("s" * 64, bundle.space_id), "utf-8")
    spec = ArtifactSpec(str(tmp_path / "indexes" / "x"), IndexBundleManifest, {}, {})
    publish_index(spec, str(manifest.parent), IndexConfig(kind="exact"))
    found = published_pair(str(tmp_path / "encoders" / "x"), spec.uri, 7)
    assert (found.generation, found.encoder_uri, found.space_id) == (7, version, bundle.space_id)
    assert found.index_uri.startswith(f"{spec.uri}/version-")
    encoder(tmp_path, 2)
    with pytest.raises(SpaceMismatch, match=r"encoders/x is of embedding space .*indexes/x"):
        published_pair(str(tmp_path / "encoders" / "x"), spec.uri, 8)


def test_file_is_read_back_and_the_newer_pair_wins(tmp_path: Path) -> None:
    uri = str(tmp_path / "served" / "x.json")
    assert read_served(uri) is None
    assert newest_pair(uri, pair(1)) == pair(1)
    served = Served(active=pair(3), previous=pair(2))
    write_served(uri, served)
    assert read_served(uri) == served
    assert newest_pair(uri, pair(1)) == pair(3)
    assert newest_pair(uri, pair(4)) == pair(4)
    Path(uri).write_text("{}")
    with pytest.raises(DamagedData, match=r"served/x\.json: .*delete it"):
        read_served(uri)
