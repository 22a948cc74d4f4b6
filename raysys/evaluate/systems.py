"""The systems that an evaluation compares: baselines and the encoders of a training run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32
from numpy import ndarray
from PIL import Image

from raysys.artifacts.embedding_set import bad_rows, fault_of, read_embeddings, refused_ids, vectors_of
from raysys.columns import ITEM_ID
from raysys.encoder.bundle import open_bundle
from raysys.encoder.interpolation import Interpolation
from raysys.encoder.preprocess import decode_image
from raysys.encoder.vision import VisionEncoder
from raysys.errors import DamagedData, InputError, MissingError
from raysys.evaluate.attribute_precision import value_codes
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.items import EvaluationItems
from raysys.evaluate.reranking import FINE_TUNED, WISE_FT, ZERO_SHOT, SystemScores, cosine_scores
from raysys.index.device import Device

_THUMBNAIL_PX = 12
_PRIOR_SHOWS = 5.0  # popularity: an item starts with so many shows at the overall tap rate


@dataclass(frozen=True)
class EvaluationInputs:
    """URIs of the items and of each system's artifact; None for a system that the configuration excludes."""

    name: str
    shard_uris: Mapping[str, str]  # split -> ShardSet
    latent_uri: str | None  # Parquet file of a drawn catalogue's latent attributes
    start_uri: str
    fine_tuned_uri: str | None
    """The fine-tuned encoder, if the embeddings are of another one (an interpolation)."""
    method: str
    embeddings_uri: str
    projected_uri: str | None
    index_uri: str
    mobilenet: str
    loss_curve: Sequence[dict[str, float]]
    interpolation: Interpolation | None
    device: Device
    """Of exact search in the index."""


def score_systems(
    inputs: EvaluationInputs,
    items: EvaluationItems,
    log: InteractionLog,
    seed: int,
    baselines: Mapping[str, Float32[ndarray, "items dim"]],
) -> Iterator[SystemScores]:
    """The scores of every system, in the order of the report; an unavailable system has a reason instead.

    `baselines` are vectors of the items under the names of their systems.
    """
    yield SystemScores("random", np.random.default_rng(seed).random(log.shown.shape), None)
    yield SystemScores("popularity", popularity_scores(log), None)
    encoders: list[tuple[str, Callable[[], Float32[ndarray, "items dim"]]]] = [
        ("thumbnail", lambda: _thumbnail_vectors(items)),
        ("mobilenet_v2", lambda: _mobilenet_vectors(inputs.mobilenet, items)),
        *((name, functools.partial(np.asarray, vectors)) for name, vectors in baselines.items()),
        (ZERO_SHOT, lambda: _embed(inputs.start_uri, items)),
        (FINE_TUNED, lambda: _fine_tuned_vectors(inputs, items)),
        (WISE_FT, lambda: _interpolated_vectors(inputs, items)),
        ("fine_tuned_pca", lambda: _projected_vectors(inputs, items)),
    ]
    for name, compute_vectors in encoders:
        try:
            vectors = compute_vectors()
        except MissingError as error:
            yield SystemScores(name, None, None, str(error))
        else:
            yield SystemScores(name, cosine_scores(items.item_ids, vectors, log), vectors)


def popularity_scores(log: InteractionLog) -> Float[ndarray, "queries max_shown"]:
    """Smoothed tap rate of each shown item over all other impressions; NaN in padding.

    The impression that is ranked is left out, because its own taps are the labels.
    """
    rows, _ = np.nonzero(log.shown)
    item_codes = value_codes(item_id for shown_ids in log.shown_ids for item_id in shown_ids)
    taps = log.tapped[log.shown].astype(np.float64)
    _, pair_codes = np.unique(rows * (item_codes.max() + 1) + item_codes, return_inverse=True)
    other_taps = np.bincount(item_codes, taps)[item_codes] - np.bincount(pair_codes, taps)[pair_codes]
    other_shows = np.bincount(item_codes)[item_codes] - np.bincount(pair_codes)[pair_codes]
    scores = np.full(log.shown.shape, np.nan)
    scores[log.shown] = (other_taps + _PRIOR_SHOWS * taps.mean()) / (other_shows + _PRIOR_SHOWS)
    return scores


def _thumbnail_vectors(items: EvaluationItems) -> Float32[ndarray, "items dim"]:
    """Pixels of the photos scaled to 12 x 12, centred and L2-normalised: a baseline for any encoder."""
    rows = []
    for photo in items.photos:
        small = decode_image(photo).resize((_THUMBNAIL_PX, _THUMBNAIL_PX), Image.Resampling.BOX)
        rows.append(np.asarray(small, dtype=np.float32).ravel())
    centred = np.stack(rows) - np.mean(rows, axis=1, keepdims=True)
    lengths = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)
    return np.asarray(centred / lengths, dtype=np.float32)


def _mobilenet_vectors(source: str, items: EvaluationItems) -> Float32[ndarray, "items dim"]:
    return VisionEncoder(source).embed_photos(items.photos)


def _fine_tuned_vectors(inputs: EvaluationInputs, items: EvaluationItems) -> Float32[ndarray, "items dim"]:
    if inputs.fine_tuned_uri is None:
        return _stored_vectors(inputs.embeddings_uri, items)
    return _embed(inputs.fine_tuned_uri, items)


def _interpolated_vectors(inputs: EvaluationInputs, items: EvaluationItems) -> Float32[ndarray, "items dim"]:
    if inputs.fine_tuned_uri is None:
        raise MissingError(f"train.method is {inputs.method}")
    return _stored_vectors(inputs.embeddings_uri, items)


def _projected_vectors(inputs: EvaluationInputs, items: EvaluationItems) -> Float32[ndarray, "items dim"]:
    if inputs.projected_uri is None:
        raise MissingError("projection.dimensions is null: this run has no projection")
    return _stored_vectors(inputs.projected_uri, items, refused_ids(inputs.embeddings_uri))


def _embed(uri: str, items: EvaluationItems) -> Float32[ndarray, "items dim"]:
    """Vectors of the photos; NaN for an item whose vector is not usable.

    Raises: DamagedData if no vector is usable.
    """
    vectors = open_bundle(uri).embed_photos(items.photos)
    bad = bad_rows(vectors)
    if len(bad) == len(vectors):
        raise DamagedData(
            f"{uri}: none of its {len(bad)} vectors is usable (first: item '{items.item_ids[0]}' "
            f"{fault_of(vectors[0])}); its weights are the likely cause: train again"
        )
    vectors[bad] = np.nan
    return vectors


def _stored_vectors(
    uri: str, items: EvaluationItems, refused: Set[str] = frozenset()
) -> Float32[ndarray, "items dim"]:
    """The items' vectors from an EmbeddingSet; NaN for an item in its ledger or in `refused`.

    Raises: InputError if another item has no vector there.
    """
    table, refused = read_embeddings(uri), refused | refused_ids(uri)
    item_id_to_row = {item_id: row for row, item_id in enumerate(table.column(ITEM_ID).to_pylist())}
    missing = [item_id for item_id in items.item_ids if item_id not in item_id_to_row]
    unexplained = [item_id for item_id in missing if item_id not in refused]
    if unexplained:
        raise InputError(
            f"{uri}: {len(unexplained)} items of the evaluation have no embedding (first {unexplained[0]}); "
            "check embed.splits"
        )
    stored = vectors_of(table)
    vectors = np.full((len(items.item_ids), stored.shape[1]), np.nan, np.float32)
    for row, item_id in enumerate(items.item_ids):
        if item_id in item_id_to_row:
            vectors[row] = stored[item_id_to_row[item_id]]
    return vectors
