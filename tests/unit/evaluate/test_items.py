"""Selection of an evaluation's items by split."""

from __future__ import annotations

import numpy as np

from raysys.evaluate.items import EvaluationItems


def test_selected_splits_keep_all_fields_of_their_items() -> None:
    items = EvaluationItems(
        item_ids=["a", "b", "c"],
        titles=["A", "B", "C"],
        photos=[b"1", b"2", b"3"],
        splits=np.array(["test", "val", "test"]),
        attributes={"colour": np.array(["red", None, "blue"], dtype=object)},
        groups=["a", "b", "a"],
    )
    selected = items.select_splits(["test"])
    assert (selected.item_ids, selected.titles, selected.photos) == (["a", "c"], ["A", "C"], [b"1", b"3"])
    assert list(selected.attributes["colour"]) == ["red", "blue"]
    assert (list(selected.splits), selected.groups) == (["test", "test"], ["a", "a"])
