"""`serve.search_on_gpu` is refused where it cannot work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import pytest

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest, IndexBundleManifest, open_artifact
from raysys.cluster.capacity import Node, shortfall
from raysys.config import Config
from raysys.config.schema import IndexConfig, ServeConfig
from raysys.errors import InputError
from raysys.index.build import publish_index
from raysys.serve import app
from raysys.serve.index_service import IndexService, IndexSettings
from tests.factories import tiny_bundle
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors


def test_index_that_a_gpu_cannot_hold_is_refused(tmp_path: Path) -> None:
    encoder = open_artifact(
        tiny_bundle(tmp_path / "encoders" / "x", ["a cup", "a hat"]), EncoderBundleManifest
    )
    embeddings = Path(publish_embeddings(tmp_path / "embeddings", unit_vectors(30)), "manifest.json")
    embeddings.write_text(embeddings.read_text("utf-8").replace("s" * 64, encoder.space_id), "utf-8")
    spec = ArtifactSpec(str(tmp_path / "indexes" / "x"), IndexBundleManifest, {}, {})
    publish_index(spec, str(embeddings.parent), IndexConfig(kind="hnsw"))
    settings = {"name": "x", "root": str(tmp_path), "projection": {"dimensions": None}}
    app.bind(Config.model_validate(settings))
    with pytest.raises(InputError, match=r"indexes/x: a GPU searches .*, found hnsw; .*search_on_gpu=false"):
        app.bind(Config.model_validate(settings | {"serve": {"search_on_gpu": True}}))


def test_gpus_of_all_replicas_are_counted() -> None:
    section = ServeConfig(use_gpu=True, search_on_gpu=True, encoder_replicas=2)
    node = Node("here", {"CPU": 16.0, "GPU": 2.0})
    line = shortfall([node], app.gpu_demands(section), is_local=True)
    assert line == (
        "2 encoders (serve.encoder_replicas) with 1 CPU and 1 GPU each, 1 search replica (serve.search_replicas) "
        "with 1 CPU and 1 GPU each need 3 CPUs and 3 GPUs together; the cluster has 1 node with 16 CPUs and 2 GPUs; "
        "lower serve.encoder_replicas, or set serve.search_on_gpu=false"
    )
    assert app.gpu_demands(ServeConfig()) == []


def test_replica_without_a_gpu_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    pair: Any = None
    with pytest.raises(InputError, match=r"serve\.search_on_gpu: .* or set serve\.search_on_gpu=false"):
        IndexService(pair, "", IndexSettings(None, 4, 256, is_on_gpu=True))
