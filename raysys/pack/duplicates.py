"""Which listings show the same thing: the same photo, nearly the same photo, or one seller's same title.

Every row looks back only: it joins what came before it, or leads a group of its own. So a catalogue that
grows at its end moves nobody. Photos are near when their perceptual hashes differ in few bits; they are
compared with the first photo of a cluster alone, so that no chain of small differences joins unlike ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
Keys = NDArray[np.uint64]  # [rows, 2]: 128 bits of a hash
Mask = NDArray[np.bool_]

_HASH_BITS = 128
_BATCH = 8192
_BAND_BITS = 21  # the bands lie in the first half, which tells more
_BANDS = 3  # two hashes within 4 bits agree in one of three bands but for a bit: 22 look-ups a band


def cluster_leaders(
    photos: Keys,
    looks: Keys,
    has_look: Mask,
    twins: Keys,
    has_twin: Mask,
    *,
    photo_bits: int | None,
    num_known: int = 0,
) -> Rows:
    """For each row the row that leads its group; a leader leads itself.

    `photos` are hashes of the bytes, `looks` perceptual hashes (where `has_look`), `twins` hashes of seller
    and title (where `has_twin`). The first `num_known` rows have their groups already: each leads itself.
    """
    rows = np.arange(len(photos))
    cluster = first_of_equal(photos)
    if photo_bits is not None:
        cluster = _near(cluster, looks, has_look, photo_bits)
    twin = rows.copy()
    twin[has_twin] = rows[has_twin][first_of_equal(twins[has_twin])]
    lead = np.where(cluster < rows, cluster, twin)
    lead[:num_known] = rows[:num_known]
    while not np.array_equal(further := lead[lead], lead):
        lead = further
    return lead


def first_of_equal(keys: Keys) -> Rows:
    """For each row the first row with the same key."""
    order = np.lexsort((keys[:, 1], keys[:, 0]))  # stable: equal keys stay in the order of their rows
    ordered = keys[order]
    is_new = np.ones(len(keys), dtype=bool)
    is_new[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    first = np.empty(len(keys), dtype=np.int64)
    first[order] = order[is_new][np.cumsum(is_new) - 1]
    return first


def leading_hashes(looks: Keys, bits: int) -> Rows:
    """For each of different perceptual hashes the earliest leader within `bits`, itself if there is none."""
    codes = looks.astype(">u8").view(np.uint8).reshape(-1, _HASH_BITS // 8)
    leader = np.arange(len(looks))
    leaders = np.empty(0, dtype=np.int64)
    index = _index(bits)
    for start in range(0, len(looks), _BATCH):
        rows = np.arange(start, min(start + _BATCH, len(looks)))
        earliest = _earliest(index, codes[rows], bits)
        is_found = earliest >= 0
        leader[rows[is_found]] = leaders[earliest[is_found]]
        fresh = rows[~is_found]
        leader[fresh] = fresh[_lead_among(codes[fresh], bits)]
        new = fresh[leader[fresh] == fresh]
        index.add(codes[new])
        leaders = np.concatenate([leaders, new])
    return leader


def _near(cluster: Rows, looks: Keys, has_look: Mask, bits: int) -> Rows:
    """Clusters of identical photos joined with those that look the same."""
    seen = np.flatnonzero((cluster == np.arange(len(cluster))) & has_look)
    first = first_of_equal(looks[seen])
    different = np.flatnonzero(first == np.arange(len(seen)))
    leader = np.empty(len(seen), dtype=np.int64)
    leader[different] = different[leading_hashes(looks[seen[different]], bits)]
    joined = np.arange(len(cluster))
    joined[seen] = seen[leader[first]]
    return joined[cluster]


def _index(bits: int) -> Any:
    import faiss  # half a second that a worker, which compares nothing, should not wait for

    index = faiss.IndexBinaryMultiHash(_HASH_BITS, _BANDS, _BAND_BITS)
    index.nflip = bits // _BANDS  # so many bits may differ in the band that differs least
    return index


def _found(index: Any, codes: NDArray[np.uint8], bits: int) -> Iterator[tuple[int, Rows]]:
    """Queries that have neighbours, and those."""
    if not index.ntotal or not len(codes):
        return
    limits, _, labels = index.range_search(np.ascontiguousarray(codes), bits + 1)  # less than, not up to
    for query in np.flatnonzero(np.diff(limits.astype(np.int64))):
        yield int(query), labels[int(limits[query]) : int(limits[query + 1])]


def _earliest(index: Any, codes: NDArray[np.uint8], bits: int) -> Rows:
    earliest = np.full(len(codes), -1, dtype=np.int64)
    for query, near in _found(index, codes, bits):
        earliest[query] = near.min()
    return earliest


def _lead_among(codes: NDArray[np.uint8], bits: int) -> Rows:
    leader = np.arange(len(codes))
    index = _index(bits)
    index.add(np.ascontiguousarray(codes))
    for query, near in _found(index, codes, bits):
        near = near[near < query]
        near = near[leader[near] == near]
        if near.size:
            leader[query] = near.min()
    return leader
