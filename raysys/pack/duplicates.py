"""Groups of listings that show the same thing: equal photos, near-equal photos, or one seller's equal titles.

Every row is compared with earlier rows only: it joins one of them or leads a group of its own, so rows
appended to a catalogue change no existing group. Photos are near when their perceptual hashes (phash) differ
in few bits. They are compared with the first photo of a cluster only, so that no chain of small differences
joins unlike photos.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

RowNumbers = NDArray[np.int64]
Hashes = NDArray[np.uint64]  # [rows, 2]: 128 bits per row
Mask = NDArray[np.bool_]

_HASH_BITS = 128
_BATCH_ROWS = 8192
# The bands cover the first 63 bits, which separate photos better than the colour bits behind them. Two hashes
# within 4 bits differ in at most one bit in one of the three bands: 22 lookups per band find them.
_BANDS = 3
_BAND_BITS = 21


def cluster_leaders(
    photos: Hashes,
    phashes: Hashes,
    has_phash: Mask,
    seller_titles: Hashes,
    has_seller: Mask,
    *,
    max_hash_distance: int | None,
    num_known: int = 0,
) -> RowNumbers:
    """For each row the row that leads its group; a leader leads itself.

    `photos` are hashes of the photo bytes, `phashes` perceptual hashes (valid where `has_phash`),
    `seller_titles` hashes of seller and title (valid where `has_seller`). Photos are near if their hashes
    differ in at most `max_hash_distance` bits; None compares bytes only. The first `num_known` rows have
    groups already: each leads itself.
    """
    rows = np.arange(len(photos))
    photo_leader = first_of_equal(photos)
    if max_hash_distance is not None:
        photo_leader = _join_near(photo_leader, phashes, has_phash, max_hash_distance)
    title_leader = rows.copy()
    title_leader[has_seller] = rows[has_seller][first_of_equal(seller_titles[has_seller])]
    leader = np.where(photo_leader < rows, photo_leader, title_leader)
    leader[:num_known] = rows[:num_known]
    while not np.array_equal(root := leader[leader], leader):
        leader = root
    return leader


def first_of_equal(keys: Hashes) -> RowNumbers:
    """For each row the first row with the same key."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal keys stay in the order of their rows
    ordered = keys[order]
    is_new = np.ones(len(keys), dtype=bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(keys), dtype=np.int64)
    first[order] = order[is_new][np.cumsum(is_new) - 1]
    return first


def near_leaders(phashes: Hashes, bits: int) -> RowNumbers:
    """For each of distinct perceptual hashes the earliest leader within `bits`; itself if there is none."""
    codes = phashes.astype(">u8").view(np.uint8).reshape(-1, _HASH_BITS // 8)
    leader = np.arange(len(phashes))
    leaders = np.empty(0, dtype=np.int64)
    index = _index(bits)
    for start in range(0, len(phashes), _BATCH_ROWS):
        rows = np.arange(start, min(start + _BATCH_ROWS, len(phashes)))
        earliest = _earliest_near(index, codes[rows], bits)
        has_leader = earliest >= 0
        leader[rows[has_leader]] = leaders[earliest[has_leader]]
        unmatched = rows[~has_leader]
        leader[unmatched] = unmatched[_leaders_within_batch(codes[unmatched], bits)]
        new = unmatched[leader[unmatched] == unmatched]
        index.add(codes[new])
        leaders = np.concatenate([leaders, new])
    return leader


def _join_near(photo_leader: RowNumbers, phashes: Hashes, has_phash: Mask, bits: int) -> RowNumbers:
    """Join the clusters of identical photos whose perceptual hashes are near."""
    compared = np.flatnonzero((photo_leader == np.arange(len(photo_leader))) & has_phash)
    first = first_of_equal(phashes[compared])
    distinct = np.flatnonzero(first == np.arange(len(compared)))
    leader = np.empty(len(compared), dtype=np.int64)
    leader[distinct] = distinct[near_leaders(phashes[compared[distinct]], bits)]
    joined = np.arange(len(photo_leader))
    joined[compared] = compared[leader[first]]
    return joined[photo_leader]


def _index(bits: int) -> Any:
    import faiss  # the import takes half a second, which the workers of a scan do not need to spend

    index = faiss.IndexBinaryMultiHash(_HASH_BITS, _BANDS, _BAND_BITS)
    index.nflip = bits // _BANDS  # the band with the fewest differences has at most this many
    return index


def _near(index: Any, codes: NDArray[np.uint8], bits: int) -> Iterator[tuple[int, RowNumbers]]:
    """Yield each query that has neighbours, with their positions in the index."""
    if not index.ntotal or not len(codes):
        return
    # FAISS returns distances below the radius, not equal to it.
    limits, _, labels = index.range_search(np.ascontiguousarray(codes), bits + 1)
    for query in np.flatnonzero(np.diff(limits.astype(np.int64))):
        yield int(query), labels[int(limits[query]) : int(limits[query + 1])]


def _earliest_near(index: Any, codes: NDArray[np.uint8], bits: int) -> RowNumbers:
    earliest = np.full(len(codes), -1, dtype=np.int64)
    for query, near in _near(index, codes, bits):
        earliest[query] = near.min()
    return earliest


def _leaders_within_batch(codes: NDArray[np.uint8], bits: int) -> RowNumbers:
    leader = np.arange(len(codes))
    index = _index(bits)
    index.add(np.ascontiguousarray(codes))
    for query, near in _near(index, codes, bits):
        near = near[near < query]
        near = near[leader[near] == near]
        if near.size:
            leader[query] = near.min()
    return leader
