"""Building and publishing an index of every kind, in one file or several."""

import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow as pa
import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData, DiskFull, InputError, MissingError
from raysys.index import build
from raysys.index.build import num_shards_of, publish_index
from raysys.index.device import CPU, Gpu
from raysys.index.neighbours import exact_neighbours
from raysys.index.search import Searcher
from raysys.index.source import shard_numbers
from tests.unit.index.embedding_sets import clustered_vectors, publish_embeddings, unit_vectors

EXACT = IndexConfig(kind="exact")
TRAINED_KINDS = ("ivf_sq8", "ivf_pq", "ivf_rabitq", "hnsw_sq8")
KINDS = ("exact", "hnsw", *TRAINED_KINDS)
# 16 of 30 lists, to which `nprobe` is raised, have fewer than 0.999 of the neighbours of random vectors.
POOR: dict[str, Any] = {
    "kind": "ivf_sq8", "num_lists": 30, "nprobe": 1, "min_recall": 0.999, "budget": {"latency_ms": 1e4}
}  # fmt: skip


def publish(folder: Path, embeddings_uri: str, **settings: Any) -> IndexBundleManifest:
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, settings, {})
    return publish_index(spec, embeddings_uri, IndexConfig.model_validate(settings))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shards", [1, 3])
def test_every_kind_finds_the_nearest_items(tmp_path: Path, kind: str, shards: int) -> None:
    vectors, queries = clustered_vectors(1200), clustered_vectors(40, seed=1)
    embeddings = publish_embeddings(tmp_path / "embeddings", vectors, num_files=4)
    manifest = publish(tmp_path, embeddings, kind=kind, shards=shards, recall_queries=100)
    assert (manifest.index_kind, manifest.num_items) == (kind, 1200)
    assert sum(name.endswith(".faiss") for name in manifest.files) == shards
    searcher = Searcher(str(tmp_path / "index"))
    exact = exact_neighbours(queries, [(np.arange(1200), vectors)], 10)
    results = searcher.search(queries, 10)
    found = {(query, near.item.item_id) for query, result in enumerate(results) for near in result}
    expected = {(query, f"m{row}") for query, rows in enumerate(exact.rows) for row in rows}
    assert len(found & expected) / len(expected) >= (1.0 if kind == "exact" else 0.9)
    for item_id in ("m0", "m700", "m1199"):  # whichever file it is in
        stored = searcher.vector(searcher.row_of(item_id))
        assert np.linalg.norm(stored) == pytest.approx(1.0, abs=1e-6)
        assert stored @ vectors[int(item_id[1:])] > 0.99


@pytest.mark.parametrize("kind", TRAINED_KINDS)
@pytest.mark.parametrize("num", [1, 2, 5, 100])
def test_kind_that_needs_more_items_is_built_as_exact(
    tmp_path: Path, kind: str, num: int, caplog: pytest.LogCaptureFixture
) -> None:
    embeddings = publish_embeddings(tmp_path / "embeddings", unit_vectors(num))
    with caplog.at_level("INFO", "raysys"):
        manifest = publish(tmp_path, embeddings, kind=kind)
    assert (manifest.index_kind, manifest.factory, manifest.recall["recall@1"]) == ("exact", "Flat", 1.0)
    assert f"index.kind: {kind} needs 1000 items, found {num}: built as exact" in caplog.text


def test_items_are_spread_over_the_files_by_the_hash_of_their_id(tmp_path: Path) -> None:
    vectors = unit_vectors(50)
    publish(tmp_path, publish_embeddings(tmp_path / "embeddings", vectors, num_files=3), shards=4)
    searcher = Searcher(str(tmp_path / "index"))
    rows = [searcher.row_of(f"m{number}") for number in range(50)]
    shards = shard_numbers(pa.chunked_array([[f"m{number}" for number in range(50)]]), 4)
    by_shard = [
        [row for row, shard in zip(rows, shards, strict=True) if shard == number] for number in range(4)
    ]
    assert [row for shard in by_shard for row in shard] == list(range(50))  # file after file, each in order
    assert all(by_shard)


def test_number_of_files_follows_from_the_size() -> None:
    assert [num_shards_of(IndexConfig(), num, 128) for num in (1, 4_194_304, 4_194_305, 10_000_000)] == [
        1,
        1,
        2,
        3,
    ]
    assert num_shards_of(IndexConfig(shards=7), 100, 128) == 7


@pytest.mark.parametrize("copies", [2, 200])
def test_copies_of_a_photo_are_equally_good_results(tmp_path: Path, copies: int) -> None:
    # 200 copies are more than the exact search lists.
    vectors = np.concatenate([unit_vectors(10)] * copies)
    manifest = publish(tmp_path, publish_embeddings(tmp_path / "embeddings", vectors), kind="exact")
    assert (manifest.recall["recall@1"], manifest.recall["recall@10"]) == (1.0, 1.0)


def test_index_is_published_with_its_recall(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(30))
    manifest = publish(tmp_path, embeddings_uri, kind="exact")
    assert artifacts.open_artifact(str(tmp_path / "index"), IndexBundleManifest) == manifest
    assert (manifest.num_items, manifest.dimensions, manifest.index_kind) == (30, 16, "exact")
    assert manifest.space_id == "s" * 64
    # Wilson's interval of 30 successes in 30 trials begins at 30 / (30 + 1.96 ** 2) = 0.8865.
    assert manifest.recall == pytest.approx(
        {"recall@1": 1.0, "recall@10": 1.0, "recall@10_low": 0.8865, "recall@10_high": 1.0, "queries": 30},
        abs=1e-4,
    )
    assert 0 < manifest.latency_ms["p50"] <= manifest.latency_ms["p99"]


def test_recall_is_measured_among_rows_that_a_filter_keeps(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(2000), num_files=2)
    manifest = publish(tmp_path, embeddings_uri, kind="exact", recall_queries=20)
    # 0.1 % of 2,000 rows are fewer than 10 neighbours.
    assert {name: value for name, value in manifest.recall.items() if "among" in name} == {
        "recall@10_among_10%": 1.0,
        "recall@10_among_1%": 1.0,
    }


def test_search_settings_are_raised_until_the_recall_is_promised(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(2000))
    manifest = publish(
        tmp_path, embeddings_uri, kind="ivf_sq8", nprobe=1, min_recall=0.6, budget={"latency_ms": 1e4}
    )
    assert manifest.search["nprobe"] in (2, 4, 8, 16)
    assert manifest.recall["recall@10"] >= 0.6


def test_settings_are_not_raised_beyond_the_latency(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(2000))
    with pytest.raises(DamagedData) as caught:
        publish(
            tmp_path, embeddings_uri, kind="ivf_sq8", nprobe=1, min_recall=0.9, budget={"latency_ms": 1e-6}
        )
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'index'}: recall@")
    assert "of the ivf_sq8 index is 0." in message
    assert "below the promised 0.9 (IVF32,SQ8, nprobe 1, recall@1 0." in message
    assert "; IVF32,SQ8, nprobe 2, recall@1 0." in message
    assert (
        ", above index.budget.latency_ms 1e-06); nothing is published; choose another index.kind" in message
    )


def test_search_uses_the_settings_of_the_manifest(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(2000))
    results = []
    for nprobe in (1, 32):
        manifest = publish(tmp_path, embeddings_uri, kind="ivf_sq8", nprobe=nprobe, min_recall=0.0)
        assert manifest.search == {"nprobe": nprobe}
        (found,) = Searcher(str(tmp_path / "index")).search(unit_vectors(1, seed=1), 50)
        results.append({neighbour.item.item_id for neighbour in found})
    assert [len(result) for result in results] == [50, 50]
    assert results[0] != results[1]


def test_attribute_of_two_types_in_two_files_is_refused(tmp_path: Path) -> None:
    attributes = ["{}"] * 9 + ['{"size": 5}'] + ['{"size": "M"}']
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(11), attributes=attributes)
    for shards in (1, 11):  # 'm9' and 'm10' are in one file, then in two
        with pytest.raises(InputError, match=r"attribute 'size' is a \w+ in item 'm\d+' and a \w+ in item"):
            publish(tmp_path, embeddings_uri, kind="exact", shards=shards)
    assert not (tmp_path / "index").exists()


def test_refused_index_leaves_the_published_one(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(1200))
    first = publish(tmp_path, embeddings_uri, kind="exact")
    with pytest.raises(DamagedData, match=r"below the promised 0\.999 \(IVF30,SQ8, nprobe 16"):
        publish(tmp_path, embeddings_uri, **POOR)
    assert Searcher(str(tmp_path / "index")).manifest == first
    assert {path.name for path in (tmp_path / "index").iterdir()} == {"manifest.json", first.folder}


def test_refused_index_publishes_nothing(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(1200))
    with pytest.raises(DamagedData):
        publish(tmp_path, embeddings_uri, **POOR)
    with pytest.raises(MissingError):
        artifacts.open_artifact(str(tmp_path / "index"), IndexBundleManifest)
    assert not (tmp_path / "index").exists()


def test_full_disk_leaves_the_published_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(60))
    first = publish(tmp_path, embeddings_uri, kind="exact")

    def full(_: bytes) -> int:
        raise OSError(28, "No space left on device")

    module: Any = faiss
    writer = module.PyCallbackIOWriter
    monkeypatch.setattr(module, "PyCallbackIOWriter", lambda _: writer(full))
    with pytest.raises(DiskFull):
        publish(tmp_path, embeddings_uri, kind="hnsw")
    assert Searcher(str(tmp_path / "index")).manifest == first


def test_files_of_a_killed_build_are_deleted(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(60))
    left = tmp_path / "index" / "version-0123456789ab" / "shard-00000.faiss"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    publish(tmp_path, embeddings_uri, kind="exact")
    assert not left.exists()


def test_several_files_are_filled_by_the_given_map_and_one_is_not(tmp_path: Path) -> None:
    calls: list[int] = []

    def counted(work: Callable[[Any], Any], pieces: Iterable[Any], /) -> Iterable[Any]:
        calls.append(len(pieces := [*pieces]))
        sent = pickle.loads(pickle.dumps((work, pieces)))  # as for a task of another process
        return map(sent[0], sent[1])

    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(60), num_files=2)
    spec = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, embeddings_uri, IndexConfig(kind="exact"), counted)
    assert calls == []
    publish_index(spec, embeddings_uri, IndexConfig(kind="exact", shards=2), counted)
    assert calls == [1, 2, 1]  # the sample, the two FAISS files, the exact neighbours


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 7.0])
def test_index_refuses_vectors_that_are_not_usable(tmp_path: Path, value: float) -> None:
    vectors = unit_vectors(30)
    vectors[12] = value
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", vectors)
    spec = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    with pytest.raises(
        DamagedData, match=r"train-00000\.parquet: 1 of 30 .* 'm12' has .*`raysys embed` again$"
    ):
        publish_index(spec, embeddings_uri, EXACT)
    assert not Path(spec.uri).exists()


def test_index_refuses_repeated_item_ids(tmp_path: Path) -> None:
    ids = ["a", "b", "c", "d", "e", "a", "b", "c", "d", "a"]
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(10), ids)
    with pytest.raises(DamagedData) as caught:
        publish_index(
            ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {}), embeddings_uri, EXACT
        )
    assert str(caught.value) == (
        f"{embeddings_uri}: 4 item ids occur more than once (first 'a' in x.tar; 'b' in x.tar; 'c' in x.tar); "
        f"make the ids unique, pack again, and delete {embeddings_uri}, then run `raysys embed` again"
    )


def test_index_without_items_is_refused(tmp_path: Path) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(0))
    with pytest.raises(DamagedData, match="an EmbeddingSet without items cannot be indexed; delete"):
        publish_index(
            ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {}), embeddings_uri, EXACT
        )


@pytest.mark.parametrize("kind", ["exact", "hnsw"])
@pytest.mark.parametrize("num", [1, 2])
def test_index_of_fewer_items_than_k_returns_all_of_them(tmp_path: Path, kind: str, num: int) -> None:
    embeddings_uri = publish_embeddings(tmp_path / "embeddings", unit_vectors(num))
    spec = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    manifest = publish_index(spec, embeddings_uri, IndexConfig.model_validate({"kind": kind}))
    assert (manifest.num_items, manifest.recall["recall@1"]) == (num, 1.0)
    searcher = Searcher(spec.uri)
    assert len(searcher.search(searcher.vector(0)[None], 10)[0]) == num
    assert len(searcher.search(searcher.vector(0)[None], 10, exclude_rows=[0])[0]) == num - 1


def test_gpu_is_refused_before_anything_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    embeddings = publish_embeddings(tmp_path / "embeddings", unit_vectors(20))
    with pytest.raises(InputError, match=r"index\.device: .* set index\.device=auto"):
        publish(tmp_path, embeddings, device="gpu")
    assert not (tmp_path / "index").exists()


def test_work_on_gpus_of_the_cluster_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    with caplog.at_level("INFO", "raysys"):
        publish(tmp_path, publish_embeddings(tmp_path / "embeddings", unit_vectors(20)))
        assert "FAISS on" not in caplog.text
        device, parallel = build._bulk(CPU, map, map)
    assert isinstance(device, Gpu)
    assert parallel is map
    assert caplog.text.count("index  FAISS on GPUs of the cluster") == 1
