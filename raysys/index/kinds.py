"""The kinds of index: a FAISS factory string each, with parameters from `index.*` or the catalogue's size.

All indexes compare unit vectors by inner product. A kind that encodes vectors coarsely (PQ, RaBitQ) keeps a
finer copy of each, with which the nearest candidates are re-ranked and from which stored vectors are read.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import faiss
import numpy as np
from jaxtyping import Float32
from numpy import ndarray

from raysys.config.schema import IndexConfig
from raysys.errors import InputError
from raysys.index.device import CPU, Device, train

log = logging.getLogger("raysys")
_faiss: Any = faiss  # its type stubs lack arguments that its Python wrapper accepts
IVF_KINDS = ("ivf_sq8", "ivf_pq", "ivf_rabitq")
RERANKED_KINDS = ("ivf_pq", "ivf_rabitq")
HNSW_KINDS = ("hnsw", "hnsw_sq8")
GPU_KINDS = ("exact", "ivf_sq8")  # of which a GPU can hold a copy
_MIN_TRAINED = 1000  # k-means and product quantisers refuse, or warn about, fewer vectors
_VECTORS_PER_LIST = 39  # the fewest with which FAISS trains a list without a warning
_TRAINING_VECTORS_PER_LIST = 64
_LISTS_PER_ROOT = 4.0  # lists as a multiple of the root of the items: the usual rule for FAISS
_REFINE = {"sq4": "SQ4", "sq6": "SQ6", "sq8": "SQ8", "fp16": "SQfp16"}
_MAX_RAISE = 16  # how far `raised` goes beyond the start


@dataclass(frozen=True)
class Recipe:
    """How to build and search an index."""

    kind: str
    factory: str
    """The FAISS factory string."""
    search: Mapping[str, int]
    """`nprobe`, `k_factor` or `ef_search`; empty for an exact index."""
    ef_construction: int | None = None
    num_lists: int = 0
    refine: str | None = None
    """Encoding of the copies that re-rank."""

    @property
    def needs_training(self) -> bool:
        return self.kind not in ("exact", "hnsw")

    @property
    def num_training_vectors(self) -> int:
        """The most vectors that training uses."""
        return max(_TRAINING_VECTORS_PER_LIST * self.num_lists, 20_000) if self.needs_training else 0


def recipe_of(section: IndexConfig, kind: str, num_items: int, dimensions: int) -> Recipe:
    """The index of this kind for `num_items` vectors; `exact` if they are too few to train it.

    Raises: InputError for a parameter that does not fit the number of items or dimensions.
    """
    if kind in (*IVF_KINDS, "hnsw_sq8") and num_items < _MIN_TRAINED:
        log.info("index.kind: %s needs %d items, found %d: built as exact", kind, _MIN_TRAINED, num_items)
        kind = "exact"
    if kind == "exact":
        return Recipe(kind, "Flat", {})
    if kind in HNSW_KINDS:
        codes = "SQ8" if kind == "hnsw_sq8" else "Flat"
        search = {"ef_search": section.ef_search}
        return Recipe(kind, f"HNSW{section.hnsw_m},{codes}", search, section.ef_construction)
    num_lists = _num_lists(section, num_items)
    search = {"nprobe": min(section.nprobe, num_lists)}
    factory = f"IVF{num_lists}"
    if kind == "ivf_sq8":
        return Recipe(kind, f"{factory},SQ8", search, num_lists=num_lists)
    codes = f"PQ{_num_subquantizers(section, dimensions)}x4fsr"
    if kind == "ivf_rabitq":
        codes = "RaBitQfs" if section.rabitq_bits == 1 else f"RaBitQfs{section.rabitq_bits}"
    search["k_factor"] = section.k_factor
    refine = section.refine or "sq8"
    return Recipe(kind, f"{factory},{codes},Refine({_REFINE[refine]})", search, None, num_lists, refine)


def empty_index(recipe: Recipe, dimensions: int) -> Any:
    """The FAISS index of a recipe, neither trained nor filled."""
    index = _faiss.index_factory(dimensions, recipe.factory, _faiss.METRIC_INNER_PRODUCT)
    if recipe.ef_construction is not None:
        index.hnsw.efConstruction = recipe.ef_construction
    return index


def trained_index(
    recipe: Recipe,
    sample: Float32[ndarray, "n d"],
    centroids: Float32[ndarray, "lists d"] | None = None,
    device: Device = CPU,
) -> Any:
    """An empty index trained on a sample; `centroids` of its lists save the k-means."""
    index = empty_index(recipe, sample.shape[1])
    if recipe.needs_training:
        if centroids is not None and recipe.num_lists:
            faiss.extract_index_ivf(index).quantizer.add(centroids)
        train(index, sample, device)
    return index


def centroids_of(index: Any) -> Float32[ndarray, "lists d"] | None:
    """The centroids of the lists of an IVF index; None for another kind."""
    ivf = faiss.try_extract_index_ivf(index)
    return None if ivf is None else np.asarray(ivf.quantizer.reconstruct_n(0, ivf.nlist))


def search_parameters(index: Any, settings: Mapping[str, int], selector: Any = None) -> Any:
    """FAISS `SearchParameters` for an index of any kind, or None; `selector` is a FAISS IDSelector.

    An index that re-ranks passes them to the index that it searches first. No more lists or candidates are
    examined than the index has.
    """
    index = _faiss.downcast_index(index)
    if isinstance(index, _faiss.IndexRefine):
        return _faiss.IndexRefineSearchParameters(
            k_factor=float(settings["k_factor"]),
            base_index_params=search_parameters(index.base_index, settings, selector),
        )
    if isinstance(index, _faiss.IndexIVF):
        return _faiss.SearchParametersIVF(nprobe=min(settings["nprobe"], index.nlist), sel=selector)
    if isinstance(index, _faiss.IndexHNSW):
        ef_search = min(settings["ef_search"], max(index.ntotal, 1))
        return _faiss.SearchParametersHNSW(efSearch=ef_search, sel=selector)
    if selector is None:
        return None  # RaBitQ without lists refuses parameters, even empty ones
    return _faiss.SearchParameters(sel=selector)


def reduced(settings: Mapping[str, int], share: float) -> dict[str, int]:
    """Search parameters with this share of the lists or candidates; as many are re-ranked as before."""
    return {
        name: value if name == "k_factor" else max(1, math.ceil(share * value))
        for name, value in settings.items()
    }


def raised(recipe: Recipe) -> Iterator[Recipe]:
    """The recipe, then the same with search parameters that find more and take longer."""
    yield recipe
    last, factor = dict(recipe.search), 2
    while recipe.search and factor <= _MAX_RAISE:
        search = {name: value * factor for name, value in recipe.search.items()}
        if "nprobe" in search:
            search["nprobe"] = min(search["nprobe"], recipe.num_lists)
        if "k_factor" in search:  # candidates that are re-ranked; lists matter more
            search["k_factor"] = recipe.search["k_factor"] * math.isqrt(factor)
        if search != last:
            yield replace(recipe, search=search)
        last, factor = search, factor * 2


def cost(recipe: Recipe, num_items: int) -> float:
    """The vectors that one search compares, for the ratio of two sizes of a catalogue."""
    if recipe.num_lists:
        return recipe.num_lists + recipe.search["nprobe"] * num_items / recipe.num_lists
    if recipe.search:
        return recipe.search["ef_search"] * math.log2(num_items + 2)
    return float(num_items)


def _num_lists(section: IndexConfig, num_items: int) -> int:
    limit = num_items // _VECTORS_PER_LIST
    if section.num_lists is None:
        power = round(math.log2(_LISTS_PER_ROOT * math.sqrt(num_items)))
        return int(min(2**power, 2 ** math.floor(math.log2(limit))))
    if section.num_lists > limit:
        raise InputError(
            f"index.num_lists: {section.num_lists} lists need {section.num_lists * _VECTORS_PER_LIST:,} "
            f"items ({_VECTORS_PER_LIST} a list), found {num_items:,}; set it to {limit} or less, or to null"
        )
    return section.num_lists


def _num_subquantizers(section: IndexConfig, dimensions: int) -> int:
    """Sub-vectors of the product quantiser; they must divide the dimensions."""
    divisors = [number for number in range(1, dimensions + 1) if dimensions % number == 0]
    if section.pq_subquantizers is None:
        return max(number for number in divisors if number <= max(1, dimensions // 4))
    if section.pq_subquantizers not in divisors:
        raise InputError(
            f"index.pq_subquantizers: {section.pq_subquantizers} does not divide {dimensions} dimensions; "
            f"use one of {', '.join(map(str, divisors))}, or null"
        )
    return section.pq_subquantizers
