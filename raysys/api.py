"""The public Python API: load what the stages made, embed, search, evaluate. Import it as `raysys`.

Vectors carry the id of their embedding space. Every function that compares vectors refuses those of another
space. Nothing here starts Ray.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysys import artifacts, storage
from raysys.artifacts import EmbeddingSetManifest, require_same_space
from raysys.artifacts.embedding_set import bad_rows, fault_of, read_embeddings, vectors_of
from raysys.columns import ITEM_ID
from raysys.errors import InputError
from raysys.evaluate.interaction_log import InteractionLog, read_log
from raysys.evaluate.reranking import evaluate_vectors
from raysys.evaluate.significance import Interval
from raysys.index.search import Neighbour, Searcher
from raysys.index.shelf import ShelfOptions, shelf
from raysys.types import Attributes, Embeddings

if TYPE_CHECKING:
    from PIL import Image

    from raysys.encoder.siglip import SiglipEncoder

__all__ = [
    "Embeddings",
    "Encoder",
    "Hit",
    "Index",
    "InteractionLog",
    "Interval",
    "evaluate_log",
    "load_embeddings",
    "load_encoder",
    "load_index",
    "read_log",
]


@dataclass(frozen=True)
class Hit:
    """An indexed item and its cosine similarity to the query."""

    item_id: str
    score: float
    title: str
    attributes: Attributes


class Encoder:
    """The encoder of an EncoderBundle, with its preprocessing and projection. Made by `load_encoder`."""

    def __init__(self, encoder: SiglipEncoder) -> None:
        self._encoder = encoder

    @property
    def space_id(self) -> str:
        """The id of the embedding space: a hash over weights, preprocessing and projection."""
        return self._encoder.space_id

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return self._encoder.dimensions

    def embed_images(
        self, images: Sequence[str | Path | bytes | Image.Image], *, batch_size: int = 64
    ) -> Embeddings:
        """Vectors of photos, (n, d) float32, in the order of `images`.

        A photo is a path or URI, the bytes of a file, or a PIL image.
        Raises: UnreadableImage for a file that is not a photo, MissingError for one that does not exist.
        """
        photos = [
            storage.read_bytes(str(image)) if isinstance(image, str | Path) else image for image in images
        ]
        return Embeddings(self._encoder.embed_photos(photos, batch_size), self.space_id)

    def embed_texts(self, texts: Sequence[str], *, batch_size: int = 64) -> Embeddings:
        """Vectors of titles or search words, (n, d) float32, in the order of `texts`."""
        return Embeddings(self._encoder.embed_titles(list(texts), batch_size), self.space_id)


class Index:
    """An opened IndexBundle. Made by `load_index`."""

    def __init__(self, uri: str) -> None:
        self._uri, self._searcher = uri, Searcher(uri)

    @property
    def space_id(self) -> str:
        """The embedding space that queries must belong to."""
        return self._searcher.space_id

    @property
    def dimensions(self) -> int:
        """Length of the vectors."""
        return self._searcher.manifest.dimensions

    def __len__(self) -> int:
        return len(self._searcher)

    def search(
        self, queries: Embeddings, *, k: int = 10, where: Mapping[str, Any] | None = None
    ) -> list[list[Hit]]:
        """The `k` nearest items of each query, best first; fewer if the index or the filter has fewer.

        `where` filters on attributes: `{"category": {"in": ["shoes"]}, "price": {"lte": 20}}`.
        Raises: SpaceMismatch for queries of another embedding space, InputError for an invalid filter and
        for a vector that is not finite or not of length 1.
        """
        require_same_space("the queries", queries.space_id, self._uri, self.space_id)
        return [_hits(found) for found in self._searcher.search(queries.array, k, where=where)]

    def similar(
        self,
        item_id: str,
        *,
        k: int = 10,
        where: Mapping[str, Any] | None = None,
        include_group: bool = False,
        max_per: Mapping[str, int] | None = None,
    ) -> list[Hit]:
        """The `k` nearest items of an indexed item, best first, without the item itself.

        Nor are its copies among them, which `raysys pack` found, unless `include_group`. `max_per` limits how
        many may share a value of an attribute: `{"seller": 2}`.
        Raises: MissingError if the item is not indexed, InputError for an invalid filter or `max_per`.
        """
        row = self._searcher.row_of(item_id)
        query = self._searcher.vector(row)
        return _hits(
            shelf(
                self._searcher,
                query,
                k,
                ShelfOptions(where, max_per, include_group),
                query_row=row,
            )
        )


def load_encoder(uri: str | Path, *, device: str = "cpu", precision: str = "fp32") -> Encoder:
    """The encoder of the bundle at `uri` on a torch device, in `fp32` or `bf16`.

    Raises: MissingError if there is no bundle, SpaceMismatch if its files differ from its manifest.
    """
    from raysys.encoder.bundle import open_bundle  # imports torch

    if precision not in ("fp32", "bf16"):
        raise InputError(f"precision: {precision}; choose fp32 or bf16")
    return Encoder(open_bundle(str(uri), device=device, precision=precision))


def load_index(uri: str | Path) -> Index:
    """The index at `uri`, opened by memory map. Raises: MissingError if there is none."""
    return Index(str(uri))


def load_embeddings(uri: str | Path, *, splits: Sequence[str] | None = None) -> Embeddings:
    """The vectors of the EmbeddingSet at `uri`, of all splits or of the given ones (`train`, `val`, `test`).

    Raises: MissingError if there is none, DamagedData if a file or a vector of it is damaged.
    """
    manifest = artifacts.open_artifact(str(uri), EmbeddingSetManifest)
    table = read_embeddings(str(uri), splits)
    return Embeddings(vectors_of(table), manifest.space_id, tuple(table.column(ITEM_ID).to_pylist()))


def evaluate_log(
    log: InteractionLog, embeddings: Embeddings, *, bootstrap_samples: int = 2000, seed: int = 13
) -> dict[str, Interval]:
    """`ndcg@5`, `hit@1` and `hit@3` of re-ranking what the log showed, with 95 % bootstrap intervals.

    Shown items are ranked by their cosine similarity to the query item; the taps are the labels.
    Raises: InputError if `embeddings` have no item ids, none of the items of the log, or a bad vector.
    """
    if embeddings.item_ids is None:
        raise InputError("embeddings: no item ids; use load_embeddings, or set Embeddings.item_ids")
    bad = bad_rows(embeddings.array)
    if len(bad):
        item_id, fault = embeddings.item_ids[bad[0]], fault_of(embeddings.array[bad[0]])
        raise InputError(
            f"embeddings: {len(bad)} of {len(embeddings)} vectors are not usable (first: that of item "
            f"'{item_id}' {fault}); leave these items out"
        )
    return evaluate_vectors(
        embeddings.item_ids, embeddings.array, log, bootstrap_samples=bootstrap_samples, seed=seed
    )


def _hits(neighbours: Sequence[Neighbour]) -> list[Hit]:
    return [Hit(one.item.item_id, one.score, one.item.title, one.item.attributes) for one in neighbours]
