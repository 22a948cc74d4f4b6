"""Fits a PCA on the training split, publishes its EncoderBundle, and projects an EmbeddingSet with it."""

from __future__ import annotations

import functools
import operator
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, EncoderBundleManifest
from raysys.artifacts.embedding_set import (
    bad_rows,
    fault_of,
    read_part,
    vector_files,
    vectors_of,
)
from raysys.artifacts.intact import damage_named, require_intact
from raysys.columns import DETAIL, EMBEDDING, ITEM_ID, REASON, SHARD, SOURCE, SPLIT, embedding_schema
from raysys.config.schema import ProjectionConfig
from raysys.embed.actor import BAD_VECTOR
from raysys.embed.parts import publish_embedding_set, require_few_refused, write_ledger
from raysys.encoder.bundle import copy_checkpoint, preprocessing_of, publish_bundle
from raysys.encoder.projection import PROJECTION_FILE, Moments, Projection, fit_projection, load_projection
from raysys.errors import InputError
from raysys.parallel import Parallel


def publish_projected_encoder(
    spec: ArtifactSpec,
    encoder_uri: str,
    embeddings_uri: str,
    section: ProjectionConfig,
    parallel: Parallel,
) -> EncoderBundleManifest:
    """Publish the bundle of `encoder_uri` with a PCA fitted on its embeddings of the training split.

    Every file is read once, by a piece of work of its own.
    Raises: InputError if these are too few, or all equal.
    """
    assert section.dimensions is not None
    source = artifacts.open_artifact(embeddings_uri, EmbeddingSetManifest)
    work = partial(_training_moments, embeddings_uri, source)
    moments = functools.reduce(operator.add, parallel(work, vector_files(source)))
    if moments.num and not moments.has_variance:
        raise InputError(
            f"projection.dimensions: the {moments.num} vectors of the train split are equal, so a PCA has "
            "no direction; check the photos, or set it to null"
        )
    projection = fit_projection(moments, section.dimensions, whiten=section.whiten)

    def write_files(folder: Path) -> None:
        with storage.readable_folder(encoder_uri) as source:
            copy_checkpoint(source, folder)
        projection.save(folder)

    encoder = artifacts.open_artifact(encoder_uri, EncoderBundleManifest)
    require_intact(encoder_uri, encoder)  # damaged weights would get a space id of their own
    return publish_bundle(
        spec,
        write_files,
        text=preprocessing_of(encoder_uri)[1],
        parent_space_id=encoder.space_id,
        training_run=encoder.training_run,
        num_items=moments.num,
    )


def publish_projected_embeddings(
    spec: ArtifactSpec,
    embeddings_uri: str,
    encoder_uri: str,
    parallel: Parallel,
    *,
    max_bad_fraction: float,
) -> EmbeddingSetManifest:
    """Publish the EmbeddingSet at `embeddings_uri` in the space of the projected bundle, file by file.

    An item whose projection has only zeros has no direction in that space: it goes to the ledger.
    Raises: DamagedData if the share of such items exceeds `max_bad_fraction`.
    """
    started = time.monotonic()
    encoder = artifacts.open_artifact(encoder_uri, EncoderBundleManifest)
    require_intact(encoder_uri, encoder, [PROJECTION_FILE])
    with storage.readable_folder(encoder_uri) as files, damage_named(encoder_uri, EncoderBundleManifest):
        projection = load_projection(files)
    assert projection is not None, f"{encoder_uri} has no projection"
    folder = artifacts.begin_version(spec)
    uri = storage.join(spec.uri, folder)
    source = artifacts.open_artifact(embeddings_uri, EmbeddingSetManifest)
    work = partial(_project_file, embeddings_uri, source, projection, uri)
    refused = [row for ledger in parallel(work, vector_files(source)) for row in ledger]
    if refused:
        require_few_refused(refused, source.num_items, max_bad_fraction)
        write_ledger(uri, refused)
    num_refused = source.num_refused + len(refused)
    seconds = time.monotonic() - started
    return publish_embedding_set(spec, folder, encoder, seconds, num_refused=num_refused)


def _training_moments(uri: str, manifest: EmbeddingSetManifest, name: str) -> Moments:
    table = read_part(uri, manifest, name)
    return Moments.of(vectors_of(table.filter(pc.equal(table.column(SPLIT), "train"))))


def _project_file(
    uri: str, manifest: EmbeddingSetManifest, projection: Projection, target_uri: str, name: str
) -> list[dict[str, str]]:
    """Write a file of the projected set; the ledger rows of its items without a projection."""
    table, refused = _project(read_part(uri, manifest, name), projection)
    with storage.writable_file(storage.join(target_uri, name)) as path:
        pq.write_table(table, path)
    return refused


def _project(table: pa.Table, projection: Projection) -> tuple[pa.Table, list[dict[str, str]]]:
    """The rows with projected vectors, and the ledger rows of those that have none."""
    vectors = projection.apply(vectors_of(table))
    bad = bad_rows(vectors)
    refused = [
        {
            ITEM_ID: row[ITEM_ID],
            REASON: BAD_VECTOR,
            DETAIL: f"its projected vector {fault}",
            SOURCE: row[SHARD],
        }
        for row, fault in zip(table.take(bad).to_pylist(), map(fault_of, vectors[bad]), strict=True)
    ]
    if refused:
        good = np.setdiff1d(np.arange(len(table)), bad)
        table, vectors = table.take(good), vectors[good]
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
    columns = {**{key: table.column(key) for key in table.schema.names}, EMBEDDING: column}
    return pa.table(columns, schema=embedding_schema(vectors.shape[1])), refused
