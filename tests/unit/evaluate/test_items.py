"""The items of an evaluation: selected splits, and photos that cannot be decoded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from raysys.evaluate.items import EvaluationItems, read_items
from raysys.shards.reader import shards_of
from tests.img2dataset_tars import Download, write_img2dataset
from tests.unit.pack.small_catalogue import jpeg
from tests.unit.pack.small_webdataset import configure, downloads, index


def test_selected_splits_keep_all_fields_of_their_items() -> None:
    items = EvaluationItems(
        item_ids=["a", "b", "c"],
        positions=[0, 2, 3],
        titles=["A", "B", "C"],
        photos=[b"1", b"2", b"3"],
        splits=np.array(["test", "val", "test"]),
        attributes={"colour": np.array(["red", None, "blue"], dtype=object)},
        groups=["a", "b", "a"],
    )
    selected = items.select_splits(["test"])
    assert (selected.item_ids, selected.titles, selected.photos) == (["a", "c"], ["A", "C"], [b"1", b"3"])
    assert selected.positions == [0, 3]
    assert list(selected.attributes["colour"]) == ["red", "blue"]
    assert (list(selected.splits), selected.groups) == (["test", "test"], ["a", "a"])


def test_photos_of_other_tools_that_cannot_be_decoded_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = Download("damaged", "sku-9", jpeg("red", (400, 400))[:-1000])
    (tar,) = write_img2dataset(tmp_path / "tars", [*downloads(2), damaged])
    config = configure(tar, tmp_path / "root")
    index(config)
    items = read_items(shards_of(f"{config.root}/shards/train"))
    assert items.titles == ["dress 0", "dress 1"]
    assert f" evaluate  1 items are left out (first: {tar}: '000000002': " in caplog.messages[-1]
