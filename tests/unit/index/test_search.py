"""Search in an opened index against brute force over its vectors."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, IndexBundleManifest
from raysys.columns import content_hash, embedding_schema
from raysys.config.schema import IndexConfig
from raysys.errors import DamagedData, InputError, MissingError
from raysys.index.build import publish_index
from raysys.index.search import Neighbour, Searcher
from tests.unit.index.embedding_sets import publish_embeddings

NUM, DIMENSIONS = 60, 8
ATTRIBUTES = [
    {"category": ["shoes", "bags", "hats"][row % 3], "price": float(row), "seller": f"s{row % 7}"}
    for row in range(NUM)
]


def unit_vectors(seed: int = 0) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(NUM, DIMENSIONS)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


VECTORS = unit_vectors()


def open_index(
    folder: Path,
    vectors: np.ndarray = VECTORS,
    kind: Literal["exact", "hnsw"] = "exact",
    shards: int | None = None,
) -> Searcher:
    embeddings = ArtifactSpec(str(folder / "embeddings"), EmbeddingSetManifest, {}, {})
    artifacts.begin(embeddings)
    shard = folder / "00000.tar"
    shard.write_bytes(b"".join(b"%03d" % row for row in range(NUM)))
    rows = [
        {
            "item_id": f"m{row}",
            "title": f"title {row}",
            "attributes": json.dumps(ATTRIBUTES[row]),
            "group": "",
            "split": "test",
            "shard": str(shard),
            "image_offset": 3 * row,
            "image_bytes": 3,
            "content_hash": content_hash(b"%03d" % row, f"title {row}"),
            "embedding": vectors[row].tolist(),
        }
        for row in range(NUM)
    ]
    table = pa.Table.from_pylist(rows, schema=embedding_schema(DIMENSIONS))
    pq.write_table(table, Path(embeddings.uri, "part.parquet"))
    fields = artifacts.common_fields(embeddings, artifacts.describe_files(embeddings.uri), NUM, 0.0)
    manifest = EmbeddingSetManifest(**fields, space_id="5" * 64, dimensions=DIMENSIONS)
    artifacts.publish(embeddings.uri, manifest)
    spec = ArtifactSpec(str(folder / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, embeddings.uri, IndexConfig(kind=kind, shards=shards))
    return Searcher(spec.uri)


@pytest.fixture(scope="module", params=["exact", "hnsw", "40 files"])  # some of them would have no item
def searcher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    folder = tmp_path_factory.mktemp("index")
    if request.param == "40 files":
        return open_index(folder, shards=40)
    return open_index(folder, kind=request.param)


def ids(neighbours: list[Neighbour]) -> list[str]:
    return [neighbour.item.item_id for neighbour in neighbours]


def by_brute_force(query: np.ndarray, rows: list[int], k: int) -> list[str]:
    return [f"m{row}" for row in sorted(rows, key=lambda row: -float(query @ VECTORS[row]))[:k]]


def test_neighbours_are_the_nearest_items_with_title_and_attributes(searcher: Searcher) -> None:
    (neighbours,) = searcher.search(VECTORS[5:6], 4)
    assert ids(neighbours) == by_brute_force(VECTORS[5], list(range(NUM)), 4)
    first = neighbours[0]
    assert (first.item.item_id, first.item.title, first.item.attributes) == ("m5", "title 5", ATTRIBUTES[5])
    assert first.score == pytest.approx(1.0, abs=1e-6)
    assert neighbours[1].score == pytest.approx(
        float(VECTORS[5] @ searcher.vector(searcher.row_of(ids(neighbours)[1]))), abs=1e-6
    )


def test_excluded_row_is_left_out_of_its_own_result_only(searcher: Searcher) -> None:
    first, second = searcher.search(VECTORS[[5, 9]], 4, exclude_rows=[searcher.row_of("m5"), None])
    assert ids(first) == by_brute_force(VECTORS[5], [row for row in range(NUM) if row != 5], 4)
    assert ids(second) == by_brute_force(VECTORS[9], list(range(NUM)), 4)
    assert len(second) == 4


def test_filtered_search_is_exact(searcher: Searcher) -> None:
    where: dict[str, Any] = {"category": {"in": ["shoes"]}, "price": {"gte": 10, "lte": 40}}
    rows = [row for row in range(10, 41) if row % 3 == 0]
    (neighbours,) = searcher.search(VECTORS[12:13], 5, where=where)
    assert ids(neighbours) == by_brute_force(VECTORS[12], rows, 5)
    (neighbours,) = searcher.search(VECTORS[12:13], 5, where=where, exclude_rows=[searcher.row_of("m12")])
    assert ids(neighbours) == by_brute_force(VECTORS[12], [row for row in rows if row != 12], 5)


def test_filter_without_matches_returns_no_neighbours(searcher: Searcher) -> None:
    assert searcher.search(VECTORS[:2], 5, where={"price": {"gte": 1000}}) == [[], []]


def test_filter_on_an_unknown_attribute_is_an_error(searcher: Searcher) -> None:
    with pytest.raises(InputError, match="filter: no attribute 'prize'.*did you mean 'price'"):
        searcher.search(VECTORS[:1], 5, where={"prize": {"gte": 1}})


def test_k_above_the_number_of_items_returns_all_items(searcher: Searcher) -> None:
    assert len(searcher.search(VECTORS[:1], 1000)[0]) == NUM
    assert len(searcher.search(VECTORS[:1], 1000, exclude_rows=[0])[0]) == NUM - 1
    assert len(searcher.search(VECTORS[:1], 1000, where={"category": {"in": ["hats"]}})[0]) == NUM // 3


def test_vector_of_wrong_length_is_an_error(searcher: Searcher) -> None:
    with pytest.raises(InputError) as caught:
        searcher.search(np.ones((1, 3), np.float32), 5)
    assert str(caught.value) == "vector: 8 numbers are required, got 3"


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        (np.nan, "has a NaN"),
        (np.inf, "has an infinite value"),
        (0.0, "has only zeros"),
        (1.0, "has length 2.8"),
    ],
)
def test_vector_that_is_not_usable_is_named(searcher: Searcher, value: float, fault: str) -> None:
    vectors = VECTORS[:3].copy()
    vectors[1] = value
    with pytest.raises(InputError) as caught:
        searcher.search(vectors, 5)
    assert str(caught.value).startswith(f"vector: number 1 of 3 {fault}")


def test_item_id_gives_row_vector_and_photo(searcher: Searcher) -> None:
    row = searcher.row_of("m7")
    assert (searcher.item(row).item_id, len(searcher), searcher.space_id) == ("m7", NUM, "5" * 64)
    np.testing.assert_allclose(searcher.vector(row), VECTORS[7], atol=1e-7)
    assert searcher.photo(row) == b"007"  # bytes 21 to 23 of the shard


def test_photo_of_a_changed_shard_is_an_error(tmp_path: Path) -> None:
    searcher, shard = open_index(tmp_path), tmp_path / "00000.tar"
    shard.write_bytes(b"x" + shard.read_bytes())
    with pytest.raises(
        DamagedData, match=r"00000.tar: has changed at byte 21, where item 'm7' had its photo"
    ):
        searcher.photo(searcher.row_of("m7"))


def test_unknown_item_is_missing(searcher: Searcher) -> None:
    with pytest.raises(MissingError) as caught:
        searcher.row_of("m60")
    assert str(caught.value) == "item 'm60' is not in the index; check the id"


def test_index_file_changes_only_with_the_vectors(tmp_path: Path) -> None:
    hashes = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        hashes.append(
            open_index(tmp_path / name, unit_vectors(seed)).manifest.files["shard-00000.faiss"].sha256
        )
    assert hashes[0] == hashes[1] != hashes[2]


def test_all_copies_of_a_photo_are_neighbours(tmp_path: Path) -> None:
    searcher = open_index(tmp_path, np.repeat(VECTORS[: NUM // 3], 3, axis=0))
    (neighbours,) = searcher.search(searcher.vector(4)[None], 2, exclude_rows=[4])
    assert sorted(ids(neighbours)) == ["m3", "m5"]  # rows 3, 4 and 5 are one photo


def test_missing_index_names_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match=r"no IndexBundle.*`raysys index`"):
        Searcher(str(tmp_path))


FORK = """
import os, signal, sys
import numpy as np
from raysys.index.search import Searcher

searcher = Searcher(sys.argv[1])
queries = np.tile(searcher.vector(0), (200, 1))
expected = searcher.search(queries, 5)
child = os.fork()
if not child:
    signal.alarm(30)  # ends a child that waits for threads
    is_equal = Searcher(sys.argv[1]).search(queries, 5) == expected == searcher.search(queries, 5)
    os._exit(0 if is_equal else 1)
assert os.waitpid(child, 0)[1] == 0
"""


def test_child_that_was_forked_after_a_search_can_search(tmp_path: Path) -> None:
    open_index(tmp_path)
    command = [sys.executable, "-c", FORK, str(tmp_path / "index")]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "2"})


def test_gpu_holds_some_kinds_only(tmp_path: Path) -> None:
    spec = ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {})
    publish_index(spec, publish_embeddings(tmp_path / "e", VECTORS), IndexConfig(kind="hnsw"))
    with pytest.raises(InputError) as caught:
        Searcher(spec.uri, is_on_device=True)
    assert str(caught.value) == (
        f"{spec.uri}: a GPU searches an index of kind exact or ivf_sq8, found hnsw; "
        "set index.kind and run `raysys index`, or set serve.search_on_gpu=false"
    )
