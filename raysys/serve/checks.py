"""The checks of an index and its encoder before requests reach them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.artifacts import IndexBundleManifest
from raysys.artifacts.embedding_set import bad_rows, fault_of
from raysys.errors import DamagedData, MissingError, ParityFailed
from raysys.index.search import Searcher

_NUM_PROBES = 32
_RECALL_MARGIN = 0.05  # of 320 neighbours: three standard errors of a recall of 0.9
_SAME_SCORE = 1e-4  # equally near items may come in another order
_NUM_GOLDEN = 8
_NUM_CANDIDATES = 64  # not every item has a photo
# By how much the code of a vector may turn it (1 - cosine), from its FAISS factory string.
_CODE_ERRORS = {"SQ4": 0.1, "SQ6": 0.03, "SQ8": 0.01}


class GoldenItem(NamedTuple):
    """An item of the index with its photo."""

    item_id: str
    photo: bytes
    vector: Float32[ndarray, " d"]
    """As the index has stored it."""


def check_index(searcher: Searcher) -> None:
    """Search for stored vectors and compare the neighbours with those of exact search.

    Raises: DamagedData for a vector or a score that is not finite, for an empty index, and for a recall below
    the one that was measured when the index was built.
    """
    name = f"index {searcher.version}"
    rows = searcher.random_rows(_NUM_PROBES, seed=1)
    if not len(rows):
        if searcher.partition.count > 1:
            return  # of few items a partition may have none
        raise DamagedData(f"{name}: has no items; run `raysys embed` and `raysys index`")
    vectors = np.stack([searcher.vector(int(row)) for row in rows])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors = vectors / np.where(lengths > 0, lengths, 1)  # a code is not of length 1
    for number in bad_rows(vectors):
        item_id = searcher.item(int(rows[number])).item_id
        raise DamagedData(f"{name}: the vector of item '{item_id}' {fault_of(vectors[number])}; index again")
    k, promised = promised_recall(searcher.manifest)
    k = min(k, len(searcher))
    exact, found = (searcher.nearest(vectors, k, is_exact=is_exact).scores for is_exact in (True, False))
    recall = float((found >= exact[:, -1:] - _SAME_SCORE).mean())
    if not recall >= promised - _RECALL_MARGIN:  # a NaN is below any recall
        raise DamagedData(
            f"{name}: recall@{k} of {len(rows)} stored vectors is {recall:.3f}, {promised:.3f} when it "
            "was built; run `raysys index` again"
        )


def promised_recall(manifest: IndexBundleManifest) -> tuple[int, float]:
    """The largest k with a measured recall, and that recall."""
    by_k = {
        int(digits): recall
        for name, recall in manifest.recall.items()
        if (digits := name.removeprefix("recall@")).isdecimal()
    }
    k = max(by_k)
    return k, by_k[k]


def golden_items(searcher: Searcher) -> list[GoldenItem]:
    """Up to 8 random items whose photos can be read; none if the items have no photos."""
    golden: list[GoldenItem] = []
    for row in searcher.random_rows(_NUM_CANDIDATES, seed=2).tolist():
        if len(golden) == _NUM_GOLDEN:
            break
        try:
            photo = searcher.photo(row)
        except (MissingError, DamagedData):  # put without a photo, or it has changed since it was embedded
            continue
        golden.append(GoldenItem(searcher.item(row).item_id, photo, searcher.vector(row)))
    return golden


def check_golden(
    golden: Sequence[GoldenItem], embedded: Sequence[Float32[ndarray, " d"]], tolerance: float
) -> None:
    """Compare the vectors that an encoder gives to the photos with the stored ones.

    Raises: ParityFailed if one differs by more than `tolerance` (1 - cosine).
    """
    for item, vector in zip(golden, embedded, strict=True):
        lengths = float(np.linalg.norm(vector) * np.linalg.norm(item.vector))
        distance = 1.0 - float(vector @ item.vector) / lengths if lengths else np.inf
        if not distance <= tolerance:
            raise ParityFailed(
                f"item '{item.item_id}': the encoder's vector of its photo differs from the stored one by "
                f"{distance:.2g} (1 - cosine), above {tolerance:g}; run `raysys embed` and `raysys index`"
            )


def golden_tolerance(manifest_factory: str, parity_tolerance: float) -> float:
    """The tolerance of `check_golden` for an index of this FAISS factory string."""
    return parity_tolerance + max(
        (error for code, error in _CODE_ERRORS.items() if code in manifest_factory), default=0.0
    )
