"""Rows join groups of earlier rows only, and the index finds the same groups as an exhaustive comparison."""

from __future__ import annotations

import numpy as np
import pytest

from raysys.pack import duplicates
from raysys.pack.duplicates import cluster_leaders, first_of_equal, near_leaders


def hashes(*numbers: int) -> duplicates.Hashes:
    return np.array([[number, 0] for number in numbers], dtype=np.uint64).reshape(-1, 2)


def leaders(
    photos: list[int],
    phashes: list[int | None],
    seller_titles: list[int | None] | None = None,
    max_hash_distance: int | None = 4,
    num_known: int = 0,
) -> list[int]:
    titles = seller_titles or [None] * len(photos)
    result = cluster_leaders(
        hashes(*photos),
        padded(np.array([phash or 0 for phash in phashes], dtype=np.uint64)),
        np.array([phash is not None for phash in phashes]),
        hashes(*(title or 0 for title in titles)),
        np.array([title is not None for title in titles]),
        max_hash_distance=max_hash_distance,
        num_known=num_known,
    )
    return [int(row) for row in result]


def padded(phashes: np.ndarray) -> np.ndarray:
    """Hashes of 128 bits that differ in their first 64 bits only."""
    return np.stack([phashes, np.zeros_like(phashes)], axis=1)


def leaders_by_comparing_all(phashes: np.ndarray, bits: int) -> list[int]:
    """The reference implementation: each hash against every earlier leader."""
    leader: list[int] = []
    for row, phash in enumerate(phashes):
        near = (
            other
            for other in range(row)
            if leader[other] == other and int(phashes[other] ^ phash).bit_count() <= bits
        )
        leader.append(next(near, row))
    return leader


def test_first_of_equal_keys_is_the_earliest() -> None:
    assert first_of_equal(hashes(7, 5, 7, 9, 5, 7)).tolist() == [0, 1, 0, 3, 1, 0]
    assert first_of_equal(np.array([[1, 2], [1, 3], [1, 2]], dtype=np.uint64)).tolist() == [0, 1, 0]


def test_identical_photos_without_a_phash_are_one_group() -> None:
    assert leaders([1, 2, 1, 3, 2], [None] * 5) == [0, 1, 0, 3, 1]


def test_photos_within_the_bits_are_one_group_and_one_more_bit_separates_them() -> None:
    assert leaders([1, 2, 3], [0b1111, 0b0000, 0b11111 << 10]) == [0, 0, 2]  # 4 bits apart, then 9
    assert leaders([1, 2], [0b11111, 0]) == [0, 1]  # 5 bits apart
    assert leaders([1, 2], [1, 1], max_hash_distance=None) == [0, 1]
    assert leaders([1, 2, 3], [0b1, 0b0, 0b1], max_hash_distance=0) == [0, 1, 0]


def test_small_differences_do_not_chain() -> None:
    # 0 and 1 are 3 bits apart, 1 and 2 are 3 apart, 0 and 2 are 6 apart: only the leader is compared.
    assert leaders([1, 2, 3], [0b000000, 0b000111, 0b111111]) == [0, 0, 2]


def test_photo_joins_the_earliest_near_leader() -> None:
    # The third is 1 bit from the second leader and 4 from the first.
    assert leaders([1, 2, 3], [0b00000000, 0b00011111, 0b00001111]) == [0, 1, 0]


def test_equal_titles_of_one_seller_are_one_group() -> None:
    assert leaders([1, 2, 3, 4], [None] * 4, [8, 9, 8, None]) == [0, 1, 0, 3]


def test_photo_of_a_member_joins_the_group_of_the_member() -> None:
    # 1 joins 0 by its title; 2 has the photo of 1.
    assert leaders([1, 2, 2], [None] * 3, [8, 8, None]) == [0, 0, 0]


def test_known_rows_lead_themselves_and_new_rows_join_them() -> None:
    assert leaders([1, 1, 1], [None] * 3, num_known=2) == [0, 1, 0]


def test_appended_rows_change_no_group() -> None:
    rng = np.random.default_rng(3)
    photos = rng.integers(0, 60, 200).tolist()
    phashes: list[int | None] = [int(phash) for phash in rng.integers(0, 1 << 10, 200)]
    titles = [int(title) if title < 40 else None for title in rng.integers(1, 80, 200)]
    complete = leaders(photos, phashes, titles)
    for size in (1, 50, 150):
        assert leaders(photos[:size], phashes[:size], titles[:size]) == complete[:size]


@pytest.mark.parametrize("bits", [0, 2, 4, 7])
def test_index_finds_the_leaders_of_the_reference(bits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "_BATCH_ROWS", 64)  # several batches
    rng = np.random.default_rng(bits)
    centres = rng.integers(0, 1 << 63, 40, dtype=np.uint64)
    flips = np.array([sum(1 << int(bit) for bit in rng.choice(64, rng.integers(0, 8), replace=False)) for _ in range(400)], dtype=np.uint64)  # fmt: skip
    phashes = np.unique(centres[rng.integers(0, 40, 400)] ^ flips)
    rng.shuffle(phashes)
    result = near_leaders(padded(phashes), bits).tolist()
    assert result == leaders_by_comparing_all(phashes, bits)
    assert bits < 2 or len(set(result)) < len(phashes)  # some hashes have a near leader
