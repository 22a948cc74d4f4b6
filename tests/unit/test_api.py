"""The public API on small artifacts, and what importing it costs."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

import raysys
from raysys import artifacts
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, EncoderBundleManifest, IndexBundleManifest
from raysys.columns import LOG_SCHEMA, embedding_schema
from raysys.config.schema import IndexConfig
from raysys.errors import InputError, MissingError, SpaceMismatch, UnreadableImage
from raysys.index.build import publish_index
from tests.factories import photo, tiny_bundle

TITLES = ["red cup", "blue cup", "green hat", "red hat"]
COLOURS = ["red", "blue", "green", "crimson"]


def write_embeddings(folder: Path, vectors: np.ndarray, space_id: str) -> str:
    rows = [
        {
            "item_id": f"i{number}",
            "title": title,
            "attributes": f'{{"kind": "{title.split()[1]}"}}',
            "split": "train" if number < 2 else "test",
            "shard": "a.tar",
            "image_offset": 0,
            "image_bytes": 0,
            "content_hash": "",
            "embedding": vector.tolist(),
        }
        for number, (title, vector) in enumerate(zip(TITLES, vectors, strict=True))
    ]
    spec = ArtifactSpec(str(folder), EmbeddingSetManifest, {}, {})
    artifacts.begin(spec)
    dimensions = vectors.shape[1]
    pq.write_table(pa.Table.from_pylist(rows, schema=embedding_schema(dimensions)), folder / "part-0.parquet")
    fields = artifacts.common_fields(spec, artifacts.describe_files(spec.uri), len(rows), 0.0)
    artifacts.publish(spec.uri, EmbeddingSetManifest(**fields, space_id=space_id, dimensions=dimensions))
    return str(folder)


class Shop:
    """A bundle, its vectors of four photos, and their index."""

    def __init__(self, root: Path) -> None:
        self.bundle = tiny_bundle(root / "encoder", TITLES)
        self.encoder = raysys.load_encoder(self.bundle)
        self.photos = [photo(colour) for colour in COLOURS]
        vectors = self.encoder.embed_images(self.photos)
        self.embeddings = write_embeddings(root / "embeddings", vectors.array, vectors.space_id)
        self.index = str(root / "index")
        publish_index(
            ArtifactSpec(self.index, IndexBundleManifest, {}, {}),
            self.embeddings,
            IndexConfig(min_recall=0.0),
        )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop(tmp_path_factory.mktemp("shop"))


def test_images_are_paths_bytes_or_opened_images(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(shop.photos[0])
    with Image.open(io.BytesIO(shop.photos[0])) as image:
        vectors = shop.encoder.embed_images(
            [str(tmp_path / "a.jpg"), tmp_path / "a.jpg", shop.photos[0], image]
        )
    assert vectors.array.shape == (4, shop.encoder.dimensions)
    assert vectors.array.dtype == np.float32
    assert vectors.space_id == artifacts.open_artifact(shop.bundle, EncoderBundleManifest).space_id
    assert (vectors.array == vectors.array[0]).all()
    np.testing.assert_allclose(np.linalg.norm(vectors.array, axis=1), 1.0, atol=1e-6)


def test_no_images_and_no_texts_give_empty_embeddings(shop: Shop) -> None:
    assert shop.encoder.embed_images([]).array.shape == (0, shop.encoder.dimensions)
    assert shop.encoder.embed_texts([]).array.shape == (0, shop.encoder.dimensions)


def test_an_image_that_is_not_a_photo_is_refused(shop: Shop) -> None:
    with pytest.raises(UnreadableImage, match="not a photo"):
        shop.encoder.embed_images([b"not a photo"])


def test_a_missing_path_is_named(shop: Shop, tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="missing.jpg"):
        shop.encoder.embed_images([tmp_path / "missing.jpg"])


def test_search_returns_the_item_itself_first(shop: Shop) -> None:
    index = raysys.load_index(shop.index)
    assert (len(index), index.dimensions) == (4, shop.encoder.dimensions)
    hits = index.search(shop.encoder.embed_images(shop.photos), k=2)
    assert [found[0].item_id for found in hits] == ["i0", "i1", "i2", "i3"]
    assert (hits[0][0].title, hits[0][0].attributes) == ("red cup", {"kind": "cup"})
    assert hits[0][0].score == pytest.approx(1.0, abs=1e-5)


def test_search_keeps_only_items_that_match_the_filter(shop: Shop) -> None:
    index = raysys.load_index(shop.index)
    (hits,) = index.search(shop.encoder.embed_texts(["red hat"]), k=9, where={"kind": {"in": ["hat"]}})
    assert {hit.item_id for hit in hits} == {"i2", "i3"}


def test_similar_leaves_out_the_item_itself(shop: Shop) -> None:
    index = raysys.load_index(shop.index)
    assert {hit.item_id for hit in index.similar("i0")} == {"i1", "i2", "i3"}
    with pytest.raises(MissingError, match="'i9' is not in the index"):
        index.similar("i9")


def test_search_refuses_vectors_of_another_space(shop: Shop) -> None:
    queries = raysys.Embeddings(shop.encoder.embed_texts(["red hat"]).array, "f" * 64)
    with pytest.raises(SpaceMismatch, match="the queries is of embedding space ffffffffffff|ffffffffffff"):
        raysys.load_index(shop.index).search(queries)


def test_embeddings_come_with_their_items(shop: Shop) -> None:
    vectors = raysys.load_embeddings(shop.embeddings)
    assert (len(vectors), vectors.item_ids) == (4, ("i0", "i1", "i2", "i3"))
    assert vectors.space_id == shop.encoder.space_id
    assert raysys.load_embeddings(shop.embeddings, splits=["test"]).item_ids == ("i2", "i3")


def test_a_log_is_evaluated_by_ranking_what_it_showed(tmp_path: Path) -> None:
    # i0 is nearest to i1; the tap was on i1, which the log showed second.
    vectors = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [-1.0, 0.0]], np.float32)
    embeddings = raysys.load_embeddings(write_embeddings(tmp_path / "embeddings", vectors, "5" * 64))
    rows = [
        {"impression_id": 1, "query_id": "i0", "item_id": item_id, "position": position, "tapped": tapped}
        for position, (item_id, tapped) in enumerate([("i2", False), ("i1", True), ("i3", False)])
    ]
    log_file = tmp_path / "log.parquet"
    pq.write_table(
        pa.Table.from_pylist([{**row, "simulated": False} for row in rows], schema=LOG_SCHEMA), log_file
    )
    report = raysys.evaluate_log(raysys.read_log(str(log_file)), embeddings)
    assert report["hit@1"] == raysys.Interval(1.0, 1.0, 1.0)
    assert (report["ndcg@5"].value, report["hit@3"].value) == (1.0, 1.0)


def test_evaluation_needs_item_ids(shop: Shop) -> None:
    log = raysys.read_log(pa.Table.from_pylist([
        {"impression_id": 1, "query_id": "i0", "item_id": "i1", "position": 0, "tapped": True, "simulated": False}
    ], schema=LOG_SCHEMA))  # fmt: skip
    with pytest.raises(InputError, match="no item ids; use load_embeddings"):
        raysys.evaluate_log(log, shop.encoder.embed_texts(["red hat"]))


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0, 7.0])
def test_vectors_that_are_not_usable_are_refused(shop: Shop, value: float) -> None:
    index, vectors = raysys.load_index(shop.index), shop.encoder.embed_texts(["red hat", "cup"])
    vectors.array[1] = value
    with pytest.raises(InputError, match="vector: number 1 of 2 has "):
        index.search(vectors)
    stored = raysys.load_embeddings(shop.embeddings)
    bad = raysys.Embeddings(np.where(np.arange(4)[:, None] == 2, value, stored.array), "s", stored.item_ids)
    log = raysys.read_log(pa.Table.from_pylist([
        {"impression_id": 1, "query_id": "i0", "item_id": "i1", "position": 0, "tapped": True, "simulated": False}
    ], schema=LOG_SCHEMA))  # fmt: skip
    with pytest.raises(InputError, match="1 of 4 vectors are not usable .first: that of item 'i2' has"):
        raysys.evaluate_log(log, bad)


def test_unknown_precision_is_refused(shop: Shop) -> None:
    with pytest.raises(InputError, match="precision: fp16; choose fp32 or bf16"):
        raysys.load_encoder(shop.bundle, precision="fp16")


def test_import_imports_neither_ray_nor_torch() -> None:
    script = (
        "import raysys, sys; print(sorted({'ray', 'torch', 'numpy', 'pydantic', 'typing'} & {*sys.modules}))"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(raysys.__file__).parents[1],
    )
    assert done.stdout == "[]\n", done.stderr


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_everything'"):
        raysys.load_everything  # noqa: B018  # the access itself raises
