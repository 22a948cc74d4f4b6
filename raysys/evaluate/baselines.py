"""The inputs of encoders: for each rung a score of every shown item, and vectors where it has any."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray
from PIL import Image

from raysys.artifacts.embedding_set import read_embeddings, vectors_of
from raysys.columns import ITEM_ID
from raysys.encoder.bundle import open_bundle
from raysys.encoder.interpolation import Interpolation
from raysys.encoder.preprocess import decode_image
from raysys.encoder.vision import VisionEncoder
from raysys.errors import InputError, MissingError
from raysys.evaluate.items import EvaluationItems
from raysys.evaluate.logs import InteractionLog, popularity_scores
from raysys.index.search import Searcher

THUMBNAIL_PX = 12
_BATCH = 256


@dataclass(frozen=True)
class EvaluationInputs:
    """Where the evaluation finds its items and the vectors of each system; None for a system that this
    configuration does not make."""

    name: str
    shard_uris: Mapping[str, str]  # split -> ShardSet
    latent_uri: str | None  # the latent attributes of a drawn catalogue
    start_uri: str
    tuned_uri: str | None  # where the embeddings are of another encoder than the fine-tuned one
    method: str
    embeddings_uri: str
    projected_uri: str | None
    index_uri: str
    mobilenet: str
    loss_curve: Sequence[dict[str, float]]
    interpolation: Interpolation | None


@dataclass(frozen=True)
class SystemScores:
    """A rung: scores of what was shown, and vectors of the items, or why there are none."""

    name: str
    scores: Float[ndarray, "queries shown"] | None
    vectors: Float32[ndarray, "items d"] | None
    reason: str | None = None


def score_systems(
    inputs: EvaluationInputs, items: EvaluationItems, log: InteractionLog, seed: int
) -> Iterator[SystemScores]:
    """Every rung of the inputs, in order; an unavailable one says why."""
    yield SystemScores("random", np.random.default_rng(seed).random(log.shown.shape), None)
    yield SystemScores("popularity", popularity_scores(log), None)
    encoders: list[tuple[str, Callable[[], Float32[ndarray, "items d"]]]] = [
        ("thumbnail", lambda: thumbnails(items)),
        ("mobilenet_v2", lambda: _mobilenet(inputs.mobilenet, items)),
        ("zero_shot", lambda: _embed(inputs.start_uri, items)),
        ("fine_tuned", lambda: _fine_tuned(inputs, items)),
        ("wise_ft", lambda: _interpolated(inputs, items)),
        ("fine_tuned_pca", lambda: _projected(inputs.projected_uri, items)),
    ]
    for name, make in encoders:
        try:
            vectors = make()
        except MissingError as error:
            yield SystemScores(name, None, None, str(error))
        else:
            yield SystemScores(name, cosines(vectors, items, log), vectors)
    yield SystemScores("fine_tuned_pca_index", _index_scores(inputs.index_uri, log), None)


def cosines(
    vectors: Float32[ndarray, "items d"], items: EvaluationItems, log: InteractionLog
) -> Float[ndarray, "queries shown"]:
    """Cosine of the query with each shown item; NaN for padding and for items that are gone."""
    scores = np.full(log.shown.shape, np.nan)
    for number, (query, shown) in enumerate(zip(log.query_ids, log.shown_ids, strict=True)):
        if query in items.row_of:
            rows = [items.row_of.get(item_id, -1) for item_id in shown]
            found = vectors[rows] @ vectors[items.row_of[query]]
            scores[number, : len(shown)] = np.where(np.array(rows) < 0, np.nan, found)
    return scores


def thumbnails(items: EvaluationItems) -> Float32[ndarray, "items d"]:
    """Photos of 12 x 12 pixels, centred and of length 1: what no encoder should lose to."""
    rows = []
    for photo in items.photos:
        small = decode_image(photo).resize((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BOX)
        rows.append(np.asarray(small, dtype=np.float32).ravel())
    centred = np.stack(rows) - np.mean(rows, axis=1, keepdims=True)
    lengths = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return np.asarray(centred / lengths, dtype=np.float32)


def stored_vectors(uri: str, items: EvaluationItems) -> Float32[ndarray, "items d"]:
    """The items' vectors from an EmbeddingSet.

    Raises: InputError if some were not embedded.
    """
    table = read_embeddings(uri)
    row_of = {item_id: row for row, item_id in enumerate(table.column(ITEM_ID).to_pylist())}
    missing = [item_id for item_id in items.item_ids if item_id not in row_of]
    if missing:
        raise InputError(
            f"{uri}: {len(missing)} items to judge were not embedded (first {missing[0]}); check embed.splits"
        )
    return vectors_of(table)[[row_of[item_id] for item_id in items.item_ids]]


def _embed(uri: str, items: EvaluationItems) -> Float32[ndarray, "items d"]:
    return open_bundle(uri).embed_photos(items.photos)


def _fine_tuned(inputs: EvaluationInputs, items: EvaluationItems) -> Float32[ndarray, "items d"]:
    if inputs.tuned_uri is None:
        return stored_vectors(inputs.embeddings_uri, items)
    return _embed(inputs.tuned_uri, items)


def _interpolated(inputs: EvaluationInputs, items: EvaluationItems) -> Float32[ndarray, "items d"]:
    if inputs.tuned_uri is None:
        raise MissingError(f"train.method is {inputs.method}")
    return stored_vectors(inputs.embeddings_uri, items)


def _mobilenet(source: str, items: EvaluationItems) -> Float32[ndarray, "items d"]:
    encoder = VisionEncoder(source)
    return encoder.embed_photos(items.photos)


def _projected(uri: str | None, items: EvaluationItems) -> Float32[ndarray, "items d"]:
    if uri is None:
        raise MissingError("projection.dimensions is null: this run has no projection")
    return stored_vectors(uri, items)


def _index_scores(uri: str, log: InteractionLog) -> Float[ndarray, "queries shown"]:
    """The score the served index gives a shown item; NaN for one that its search does not find."""
    searcher = Searcher(uri)
    scores = np.full(log.shown.shape, np.nan)
    for number, (query, shown) in enumerate(zip(log.query_ids, log.shown_ids, strict=True)):
        row = searcher.row_of(query)
        neighbours = searcher.search(searcher.vector(row)[None], len(searcher))[0]
        found = {neighbour.item.item_id: neighbour.score for neighbour in neighbours}
        scores[number, : len(shown)] = [found.get(item_id, np.nan) for item_id in shown]
    return scores
