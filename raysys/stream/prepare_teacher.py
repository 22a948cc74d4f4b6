"""The driver's side of `train.teacher`: vectors of the training items, projected, in files beside the run.

A PCA, fitted on the training items, keeps at most 256 dimensions; vectors are then normalised and rounded to
16 bits, 5 GB for 10 M items. The files are written once a run, before Ray starts.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from jaxtyping import Float16, Int64
from numpy import ndarray

from raysys import storage
from raysys.artifacts.vectors import iter_vectors, read_item_ids
from raysys.encoder.projection import Moments, Projection, fit_projection
from raysys.errors import InputError
from raysys.shards.reader import ShardRef, item_ids
from raysys.stream.teacher import TeacherVectors
from raysys.tracking.logs import log

FOLDER = "teacher"  # of a run
_COMPLETE = "teacher.json"  # written last
_MAX_DIMENSIONS = 256
_EXAMPLES = 3  # item ids that a message names


def prepare_teacher(
    uri: str, run_uri: str, shards: Sequence[ShardRef], *, max_bad_fraction: float
) -> TeacherVectors:
    """The vectors of the source at `uri` for the items of `shards`; an earlier start may have written them.

    Raises: InputError if more than `max_bad_fraction` of the items have no vector, or all vectors are equal;
    and as `read_vectors`.
    """
    folder = storage.join(run_uri, FOLDER)
    complete = storage.join(folder, _COMPLETE)
    if storage.exists(complete):
        return TeacherVectors(folder, json.loads(storage.read_bytes(complete))["dimensions"])
    log.info("    train  teacher: reading and projecting the vectors of %s", uri)
    shard_ids = [item_ids(shard) for shard in shards]
    training_ids = pa.concat_arrays([ids.cast(pa.large_string()) for ids in shard_ids])
    rows = _rows_of(uri, training_ids, max_bad_fraction)
    projected = _project(uri, rows, len(training_ids))
    vectors, first = TeacherVectors(folder, projected.shape[1]), 0
    for number, ids in enumerate(shard_ids):
        vectors.write(number, ids, projected[first : first + len(ids)])
        first += len(ids)
    content = {"source": uri, "dimensions": vectors.dimensions, "num_items": int((rows >= 0).sum())}
    storage.write_bytes(complete, json.dumps(content, indent=2).encode())
    return vectors


def _rows_of(uri: str, training_ids: pa.Array, max_bad_fraction: float) -> Int64[ndarray, " rows"]:
    """For every row of the source the position of its item among `training_ids`; -1 for other items."""
    ids = read_item_ids(uri)
    positions = pc.fill_null(pc.index_in(ids, value_set=training_ids), -1)
    rows: Int64[ndarray, " rows"] = np.asarray(positions.to_numpy(), np.int64)
    num_missing = len(training_ids) - int((rows >= 0).sum())
    if num_missing:
        absent = training_ids.filter(pc.invert(pc.is_in(training_ids, value_set=ids)))
        named = ", ".join(f"'{item_id}'" for item_id in absent[:_EXAMPLES].to_pylist())
        line = f"{num_missing} of {len(training_ids)} training items have no vector (first {named})"
        if num_missing > max_bad_fraction * len(training_ids):
            raise InputError(
                f"train.teacher.embeddings: {uri}: {line}, above stream.max_bad_fraction "
                f"{max_bad_fraction:g}; embed them with the teacher, or raise the fraction"
            )
        log.warning("    train  teacher: %s; they train without it", line)
    return rows


def _project(uri: str, rows: Int64[ndarray, " rows"], num_items: int) -> Float16[ndarray, "items k"]:
    """The projected vector of every training item; zeros without one."""
    projection = _fit(uri, rows)
    projected = np.zeros((num_items, projection.dimensions), np.float16)
    first = 0
    for vectors in iter_vectors(uri):
        part = rows[first : first + len(vectors)]
        projected[part[part >= 0]] = projection.apply(vectors[part >= 0])
        first += len(vectors)
    return projected


def _fit(uri: str, rows: Int64[ndarray, " rows"]) -> Projection:
    moments, first = None, 0
    for vectors in iter_vectors(uri):
        part = Moments.of(vectors[rows[first : first + len(vectors)] >= 0])
        moments = part if moments is None else moments + part
        first += len(vectors)
    if moments is None or not moments.has_variance:
        num = moments.num if moments else 0
        raise InputError(
            f"train.teacher.embeddings: {uri}: the vectors of {num} training items are all equal, so a PCA "
            "has no direction; check how they were computed"
        )
    return fit_projection(moments, min(_MAX_DIMENSIONS, moments.num, len(moments.sums)))
