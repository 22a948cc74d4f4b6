"""The checks of an index before it is served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData, ParityFailed
from raysys.index.build import publish_index
from raysys.index.search import Searcher
from raysys.serve.checks import GoldenItem, check_golden, check_index, golden_items, golden_tolerance
from tests.unit.index.embedding_sets import publish_embeddings, unit_vectors
from tests.unit.serve.conftest import photos


def searcher_of(folder: Path, kind: str, num: int = 200) -> Searcher:
    embeddings = publish_embeddings(folder / "e", unit_vectors(num, 16))
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, embeddings, IndexConfig.model_validate({"kind": kind, "num_lists": 16}))
    return Searcher(spec.uri)


@pytest.mark.parametrize(("kind", "num"), [("exact", 5), ("exact", 200), ("hnsw", 200), ("ivf_sq8", 1200)])
def test_index_that_keeps_its_promise_passes(tmp_path: Path, kind: str, num: int) -> None:
    searcher = searcher_of(tmp_path, kind, num)
    check_index(searcher)
    assert golden_items(searcher) == []  # its items have no photos


def test_index_that_finds_fewer_neighbours_than_promised_is_refused(tmp_path: Path) -> None:
    searcher_of(tmp_path, "ivf_sq8", 1200)
    manifest = tmp_path / "index" / "manifest.json"
    content = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**content, "search": {"nprobe": 1}}))  # of 16 lists
    searcher = Searcher(str(manifest.parent))
    with pytest.raises(
        DamagedData, match=r"index \w+\.0: recall@10 of 32 stored vectors is 0\.\d+, .* built"
    ):
        check_index(searcher)


def test_golden_items_have_their_photos(index_uri: str) -> None:
    golden = golden_items(Searcher(index_uri))
    assert len(golden) == 8
    assert {item.photo for item in golden} < set(photos())


@pytest.mark.parametrize(("angle", "is_accepted"), [(0.0, True), (0.05, True), (0.2, False), (np.nan, False)])
def test_vector_of_a_golden_item_may_differ_by_the_tolerance(angle: float, is_accepted: bool) -> None:
    stored = np.array([1.0, 0.0], np.float32)
    embedded = np.array([np.cos(angle), np.sin(angle)], np.float32)  # 1 - cosine: 0, 0.00125, 0.02
    golden = [GoldenItem("m1", b"", stored)]
    if is_accepted:
        check_golden(golden, [embedded], 0.01)
    else:
        with pytest.raises(ParityFailed, match=r"item 'm1': .* above 0\.01; run `raysys embed`"):
            check_golden(golden, [embedded], 0.01)


def test_tolerance_fits_the_codes() -> None:
    assert golden_tolerance("HNSW32,Flat", 0.01) == 0.01
    assert golden_tolerance("IVF16,SQ8", 0.01) == 0.02
    assert golden_tolerance("IVF16,PQ8x4fsr,Refine(SQ4)", 0.01) == 0.11
