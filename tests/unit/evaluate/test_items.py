"""Items of an evaluation, and those of some splits among them."""

from __future__ import annotations

import numpy as np

from raysys.evaluate.items import EvaluationItems


def test_items_of_some_splits_keep_their_rows_together() -> None:
    items = EvaluationItems(
        item_ids=["a", "b", "c"],
        titles=["A", "B", "C"],
        photos=[b"1", b"2", b"3"],
        splits=np.array(["test", "val", "test"]),
        attributes={"colour": np.array(["red", None, "blue"], dtype=object)},
        groups=["a", "b", "a"],
    )
    found = items.of_splits(["test"])
    assert (found.item_ids, found.titles, found.photos) == (["a", "c"], ["A", "C"], [b"1", b"3"])
    assert list(found.attributes["colour"]) == ["red", "blue"]
    assert (list(found.splits), found.groups) == (["test", "test"], ["a", "a"])
    assert found.row_of == {"a": 0, "c": 1}
