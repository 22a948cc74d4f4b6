"""Labels and weights of image-caption pairs under each treatment of false negatives."""

from __future__ import annotations

from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from raysys.config.schema import FalseNegativesConfig
from raysys.encoder.text import TextPreprocessing, caption_keys
from raysys.train.loss import labels_and_weights
from tests.unit.train.loss.rows import EqualTitles, keys, pairs_of, unit_rows

DIAGONAL = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1]]


def table(
    row_keys: Tensor,
    policy: FalseNegativesConfig,
    groups: Tensor | None = None,
    part: slice | None = None,
    images: Tensor | None = None,
) -> tuple[list[list[float]], list[list[float]]]:
    """Labels and weights of the images of `part` against all captions."""
    vectors = unit_rows(len(row_keys), seed=1) if images is None else images
    left, right = (pairs_of(vectors, vectors, row_keys, groups, rows) for rows in (part, None))
    labels, weights = labels_and_weights(left, right, policy)
    return labels.tolist(), weights.tolist()


def test_labels_and_weights_of_three_captions_by_hand() -> None:
    row_keys = keys(7, 8, 7)
    labels, weights = table(row_keys, FalseNegativesConfig(equal_titles="negative"))
    assert labels == DIAGONAL
    assert weights == [[1, 1, 1]] * 3
    labels, weights = table(row_keys, FalseNegativesConfig(equal_titles="masked"))
    assert labels == DIAGONAL
    assert weights == [[1, 1, 0], [1, 1, 1], [0, 1, 1]]
    labels, weights = table(row_keys, FalseNegativesConfig(equal_titles="merged"))
    assert labels == [[1, -1, 1], [-1, 1, -1], [1, -1, 1]]
    assert weights == [[0.5, 1, 0.5]] * 3


@pytest.mark.parametrize("equal_titles", ["merged", "masked", "negative"])
def test_second_worker_has_the_lower_rows_of_the_table(equal_titles: EqualTitles) -> None:
    row_keys, policy = keys(7, 8, 7, 9), FalseNegativesConfig(equal_titles=equal_titles)
    full, lower = table(row_keys, policy), table(row_keys, policy, part=slice(2, 4))
    for full_values, lower_values in zip(full, lower, strict=True):
        assert full_values[2:] == lower_values


@pytest.mark.parametrize("equal_titles", ["merged", "masked", "negative"])
def test_missing_caption_has_weight_zero(equal_titles: EqualTitles) -> None:
    _, weights = table(keys(7, 0, 8, 0), FalseNegativesConfig(equal_titles=equal_titles))
    assert weights == [[1, 0, 1, 0], [0, 0, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]


def test_equal_titles_of_the_stream_have_equal_keys() -> None:
    text = TextPreprocessing(max_length=6)
    row_keys = torch.from_numpy(caption_keys(["Red dress", "cup", "red  dress", ""], text))
    labels, weights = table(row_keys, FalseNegativesConfig())
    assert labels[0][:3] == [1, -1, 1]
    assert weights == [[0.5, 1, 0.5, 0]] * 3 + [[0, 0, 0, 0]]


@pytest.mark.parametrize("equal_titles", ["merged", "masked", "negative"])
def test_captions_of_a_group_are_masked_positive_or_negative(equal_titles: EqualTitles) -> None:
    row_keys, groups = keys(11, 12, 13), keys(5, -1, 5)  # the first and the last row are one group

    def table_with(same_group: Literal["masked", "positive", "negative"]) -> tuple[Any, Any]:
        policy = FalseNegativesConfig(equal_titles=equal_titles, same_group=same_group)
        return table(row_keys, policy, groups)

    assert table_with("masked") == (DIAGONAL, [[1, 1, 0], [1, 1, 1], [0, 1, 1]])
    assert table_with("negative") == (DIAGONAL, [[1, 1, 1]] * 3)
    assert table_with("positive") == (
        [[1, -1, 1], [-1, 1, -1], [1, -1, 1]],
        [[1, 1, 0.5], [1, 1, 1], [0.5, 1, 1]],
    )


def test_equal_titles_in_a_group_stay_positive() -> None:
    labels, weights = table(keys(11, 11), FalseNegativesConfig(), keys(5, 5))
    assert labels == [[1, 1], [1, 1]]
    assert weights == [[0.5, 0.5], [0.5, 0.5]]


def test_similar_photos_are_masked_or_positive() -> None:
    images = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]], dtype=torch.float64)  # cosines 0.8, 0, 0.6
    masked = FalseNegativesConfig(photo_cosine_threshold=0.7)
    assert table(keys(1, 2, 3), masked, images=images) == (DIAGONAL, [[1, 0, 1], [0, 1, 1], [1, 1, 1]])
    positive = FalseNegativesConfig(photo_cosine_threshold=0.7, similar_photos_are="positive")
    assert table(keys(1, 2, 3), positive, images=images) == (
        [[1, 1, -1], [1, 1, -1], [-1, -1, 1]],
        [[1, 1, 1]] * 3,
    )
