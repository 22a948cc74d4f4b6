"""The sections `index` and `frontier`: nearest neighbours of the vectors."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from raysys.config.section import Fraction, RunName, Section


class BudgetConfig(Section):
    """What the index may cost. `index.kind: auto` takes the kind that needs the least memory and keeps it."""

    memory_bytes: PositiveInt | None = None
    """Maximum memory of all vectors in the opened index, in bytes. Null: no limit."""
    bytes_per_vector: PositiveFloat | None = None
    """The same per vector; set one of the two."""
    recall_at_10: Fraction | None = None
    """Recall@10 that is promised, instead of `index.min_recall`."""
    latency_ms: PositiveFloat = 5.0
    """Maximum p99 of one search on one thread, in ms. The search parameters of any kind are raised towards
    `index.min_recall` only within it."""

    @model_validator(mode="after")
    def _one_limit(self) -> BudgetConfig:
        if self.memory_bytes is not None and self.bytes_per_vector is not None:
            raise ValueError("memory_bytes and bytes_per_vector limit the same; set one of them")
        return self


class IndexConfig(Section):
    """`raysys index`: the FAISS nearest-neighbour index."""

    embeddings: RunName | None = None
    """`raysys index --embeddings`: index the EmbeddingSet `embeddings/<this>` (of `raysys embed --to`) as
    `indexes/<this>`; `raysys serve` with the same setting serves it. Null: that of the trained encoder, as
    `indexes/<name>`."""
    kind: Literal["auto", "exact", "ivf_sq8", "ivf_pq", "ivf_rabitq", "hnsw", "hnsw_sq8"] = "auto"
    """`auto`: chosen by `index.budget` and measurements on a sample. `exact` compares a query with every
    vector. `ivf_sq8` searches the nearest lists of 8-bit vectors; `ivf_pq` and `ivf_rabitq` search lists of
    shorter codes and re-rank the best. `hnsw` searches a graph (Malkov & Yashunin 2016), `hnsw_sq8` one of
    8-bit vectors."""
    budget: BudgetConfig = BudgetConfig()
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where FAISS trains and fills the index and compares queries with all vectors. `gpu`: the first NVIDIA
    GPU of the machine that runs the command, with `raysys[gpu]`. `auto`: the GPU if there is one, else the
    CPU. The files can be searched without a GPU."""
    num_lists: PositiveInt | None = None
    """IVF: number of lists (nlist). Null: the power of two nearest to 4 times the root of the items."""
    nprobe: PositiveInt = 32
    """IVF: lists that a search visits."""
    pq_subquantizers: PositiveInt | None = None
    """`ivf_pq`: sub-vectors of 4 bits each (M); must divide the dimensions. Null: a quarter of them."""
    rabitq_bits: Annotated[int, Field(ge=1, le=8)] = 1
    """`ivf_rabitq`: bits per dimension."""
    refine: Literal["sq4", "sq6", "sq8", "fp16"] | None = None
    """`ivf_pq` and `ivf_rabitq`: encoding of the copies that re-rank. Null: `sq8`; `auto` also tries shorter
    ones."""
    k_factor: PositiveInt = 10
    """`ivf_pq` and `ivf_rabitq`: candidates that are re-ranked, as a multiple of k."""
    hnsw_m: PositiveInt = 32
    """HNSW: links per node (M)."""
    ef_construction: PositiveInt = 200
    """HNSW: candidates while building (efConstruction)."""
    ef_search: PositiveInt = 128
    """HNSW: candidates while searching (efSearch)."""
    shards: PositiveInt | None = None
    """Files that the items are spread over by the hash of their id; on CPUs, Ray tasks fill more than one.
    Null: one for every 2 GiB of float32 vectors."""
    recall_queries: PositiveInt = 1000
    """Number of queries that measure recall against exact search."""
    recall_k: PositiveInt = 10
    """Number of neighbours in that measurement."""
    min_recall: Fraction = 0.9
    """The recall that is promised, without and with filters. Below it, search parameters are raised within
    `index.budget.latency_ms`; if that is not enough, the build fails and publishes nothing."""

    @property
    def promised_recall(self) -> float:
        """The lowest recall with which an index is published."""
        return self.min_recall if self.budget.recall_at_10 is None else self.budget.recall_at_10


class FrontierConfig(Section):
    """`raysys index --frontier`: size and latency of the vectors against quality."""

    dimensions: tuple[Annotated[int, Field(ge=2)], ...] | None = None
    """Numbers of dimensions to compare with all of them, by one PCA. Null: the powers of two from 32."""
    max_items: Annotated[int, Field(ge=2)] = 100_000
    """Recall and latency are measured among at most so many items, a random sample of the catalogue."""
