"""Groups look back only, and are the same whatever index finds them."""

from __future__ import annotations

import numpy as np
import pytest

from raysys.pack import duplicates
from raysys.pack.duplicates import cluster_leaders, first_of_equal, leading_hashes


def keys(*numbers: int) -> duplicates.Keys:
    return np.array([[number, 0] for number in numbers], dtype=np.uint64).reshape(-1, 2)


def groups(
    photos: list[int],
    looks: list[int | None],
    twins: list[int | None] | None = None,
    photo_bits: int | None = 4,
    num_known: int = 0,
) -> list[int]:
    named = twins or [None] * len(photos)
    found = cluster_leaders(
        keys(*photos),
        as_keys(np.array([look or 0 for look in looks], dtype=np.uint64)),
        np.array([look is not None for look in looks]),
        keys(*(twin or 0 for twin in named)),
        np.array([twin is not None for twin in named]),
        photo_bits=photo_bits,
        num_known=num_known,
    )
    return [int(row) for row in found]


def as_keys(looks: np.ndarray) -> np.ndarray:
    """Looks that differ in their first 64 bits alone."""
    return np.stack([looks, np.zeros_like(looks)], axis=1)


def compared_with_all(looks: np.ndarray, bits: int) -> list[int]:
    """The slow twin: each look against every leader before it."""
    leader: list[int] = []
    for row, look in enumerate(looks):
        near = (
            other
            for other in range(row)
            if leader[other] == other and int(looks[other] ^ look).bit_count() <= bits
        )
        leader.append(next(near, row))
    return leader


def test_first_of_equal_keys_is_the_earliest() -> None:
    assert first_of_equal(keys(7, 5, 7, 9, 5, 7)).tolist() == [0, 1, 0, 3, 1, 0]
    assert first_of_equal(np.array([[1, 2], [1, 3], [1, 2]], dtype=np.uint64)).tolist() == [0, 1, 0]


def test_identical_photos_are_one_group_also_without_a_look() -> None:
    assert groups([1, 2, 1, 3, 2], [None] * 5) == [0, 1, 0, 3, 1]


def test_photos_within_the_bits_are_one_group_and_one_more_bit_is_another() -> None:
    assert groups([1, 2, 3], [0b1111, 0b0000, 0b11111 << 10]) == [0, 0, 2]  # 4 bits apart, then 9
    assert groups([1, 2], [0b11111, 0]) == [0, 1]  # 5 bits apart
    assert groups([1, 2], [1, 1], photo_bits=None) == [0, 1]
    assert groups([1, 2, 3], [0b1, 0b0, 0b1], photo_bits=0) == [0, 1, 0]


def test_small_differences_make_no_chain() -> None:
    # 0 and 1 are 3 bits apart, 1 and 2 are, 0 and 2 are 6 apart: only the leader counts.
    assert groups([1, 2, 3], [0b000000, 0b000111, 0b111111]) == [0, 0, 2]


def test_a_look_joins_the_earliest_leader_that_is_near() -> None:
    # The third is 1 bit from the second leader and 4 from the first.
    assert groups([1, 2, 3], [0b00000000, 0b00011111, 0b00001111]) == [0, 1, 0]


def test_the_same_title_of_the_same_seller_is_one_group() -> None:
    assert groups([1, 2, 3, 4], [None] * 4, [8, 9, 8, None]) == [0, 1, 0, 3]


def test_a_photo_of_a_member_belongs_to_the_members_group() -> None:
    # 1 joins 0 by its title; 2 has the photo of 1.
    assert groups([1, 2, 2], [None] * 3, [8, 8, None]) == [0, 0, 0]


def test_what_is_known_leads_itself_and_is_joined_by_the_new() -> None:
    assert groups([1, 1, 1], [None] * 3, num_known=2) == [0, 1, 0]


def test_later_rows_move_nobody() -> None:
    rng = np.random.default_rng(3)
    photos = rng.integers(0, 60, 200).tolist()
    looks: list[int | None] = [int(look) for look in rng.integers(0, 1 << 10, 200)]
    twins = [int(twin) if twin < 40 else None for twin in rng.integers(1, 80, 200)]
    whole = groups(photos, looks, twins)
    for size in (1, 50, 150):
        assert groups(photos[:size], looks[:size], twins[:size]) == whole[:size]


@pytest.mark.parametrize("bits", [0, 2, 4, 7])
def test_the_index_finds_what_comparing_with_all_finds(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BATCH", 64)  # several batches of few looks
    rng = np.random.default_rng(bits)
    centres = rng.integers(0, 1 << 63, 40, dtype=np.uint64)
    flips = np.array([sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 8), replace=False)) for _ in range(400)], dtype=np.uint64)  # fmt: skip
    looks = np.unique(centres[rng.integers(0, 40, 400)] ^ flips)
    rng.shuffle(looks)
    found = leading_hashes(as_keys(looks), bits).tolist()
    assert found == compared_with_all(looks, bits)
    assert bits < 2 or len(set(found)) < len(looks)  # something was near something
