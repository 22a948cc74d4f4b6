"""The catalogue of the shipped start: nothing of the demo, and of real catalogues only the training split."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys.config.load import load_config
from raysys.synth import generate_items, pretraining
from raysys.synth.pretraining import SEEDS, write_catalog
from tests.factories import photo

DEMO = load_config("configs/demo.yaml")
HEADER = "item_id,title,title_ja,image,split,seller,category_fine,colour"
REAL = (
    "m1,Red dress,赤 ワンピース,images/m1.jpg,train,c1,dress,red",
    "m2,Blue hat,青 帽子,images/m2.jpg,test,c2,hat,blue",
)


@pytest.fixture
def real(tmp_path: Path) -> Path:
    folder = tmp_path / "real"
    (folder / "images").mkdir(parents=True)
    (folder / "items.csv").write_text("\n".join([HEADER, *REAL]) + "\n", encoding="utf-8")
    for name in ("m1", "m2"):
        (folder / "images" / f"{name}.jpg").write_bytes(photo())
    embeddings = pa.array([[1.0, 0.0], [0.0, 1.0]], pa.list_(pa.float32()))
    pq.write_table(
        pa.table({"item_id": ["m1", "m2"], "embedding": embeddings}), folder / "imagenet_vectors.parquet"
    )
    return folder


@pytest.fixture
def rows(real: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, str]]:
    monkeypatch.setattr(pretraining, "ITEMS_PER_SEED", 3)
    number = write_catalog(tmp_path / "out", [real], map)
    with (tmp_path / "out" / "items.csv").open(newline="", encoding="utf-8") as stream:
        listed = list(csv.DictReader(stream))
    assert len(listed) == number
    return listed


def test_real_items_of_the_training_split_have_both_titles(rows: list[dict[str, str]], real: Path) -> None:
    listed = [(row["item_id"], row["title"], row["split"]) for row in rows if row["item_id"].startswith("m")]
    assert listed == [("m1", "Red dress", "train"), ("m1-ja", "赤 ワンピース", "train")]
    assert rows[-1]["image"] == str(real / "images" / "m1.jpg")


def test_drawn_items_are_not_the_demos(rows: list[dict[str, str]], tmp_path: Path) -> None:
    assert DEMO.catalog.kind == "drawn"
    assert DEMO.catalog.seed not in SEEDS
    drawn = [row for row in rows if row["item_id"].startswith("d")]
    assert drawn
    assert not {row["item_id"] for row in drawn} & {item.item_id for item in generate_items(3000, 7)}
    assert {row["split"] for row in drawn} == {"train", "val", "test"}
    assert all((tmp_path / "out" / row["image"]).is_file() for row in drawn)


def test_both_listings_of_a_real_photo_have_its_vector(rows: list[dict[str, str]], tmp_path: Path) -> None:
    table = pq.read_table(tmp_path / "out" / "teacher.parquet").to_pydict()
    vectors = dict(zip(table["item_id"], table["embedding"], strict=True))
    assert vectors["m1"] == vectors["m1-ja"] == [1.0, 0.0]
    np.testing.assert_array_equal(vectors["m2"], [0.0, 1.0])
