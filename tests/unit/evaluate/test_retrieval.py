"""Recall from photo to title, by hand."""

from __future__ import annotations

import pytest
import torch

from raysys.evaluate.retrieval import PairEmbeddings, recall_at, recalls

SCORES = torch.tensor([[0.9, 0.1, 0.5], [0.8, 0.3, 0.2], [0.3, 0.2, 0.1]])


def test_recall_at_k_of_three_rows() -> None:
    # Best first: row 0 has columns 0, 2, 1; row 1 has 0, 1, 2; row 2 has 0, 1, 2. Row i is correct with column i.
    keys = torch.tensor([11, 12, 13])
    assert [recall_at(k, SCORES, keys) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_equal_title_of_another_item_is_correct() -> None:
    keys = torch.tensor([11, 12, 11])  # the best column of row 2 is 0, which has the same title
    assert recall_at(1, SCORES, keys) == pytest.approx(2 / 3)


def test_k_above_the_number_of_items_uses_all_items() -> None:
    assert recall_at(10, SCORES, torch.tensor([11, 12, 13])) == 1.0


def test_equal_titles_are_all_correct() -> None:
    assert recalls(PairEmbeddings(torch.eye(12), torch.ones(12, 12), torch.full((12,), 7))) == {
        "r@1": 1.0, "r@5": 1.0, "r@10": 1.0,
    }  # fmt: skip


def test_recalls_are_those_of_the_cosines() -> None:
    # All photos are equal and have the same best title: one of four is correct.
    titles = torch.nn.functional.normalize(torch.tensor([[3.0, 1.0], [2.0, 1.0], [1.0, 1.0], [0.0, 1.0]]))
    pairs = PairEmbeddings(torch.tensor([[1.0, 0.0]]).expand(4, 2), titles, torch.arange(4))
    assert recalls(pairs) == {"r@1": 0.25, "r@5": 1.0, "r@10": 1.0}
