"""Fits a PCA on the training split, publishes its EncoderBundle, and projects an EmbeddingSet with it."""

from __future__ import annotations

import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest, EncoderBundleManifest
from raysys.artifacts.embedding_set import read_embeddings, vector_files, vectors_of
from raysys.columns import EMBEDDING, embedding_schema
from raysys.embed.job import publish_embedding_set
from raysys.encoder.bundle import copy_checkpoint, preprocessing_of, publish_bundle
from raysys.encoder.projection import fit_projection, load_projection


def publish_projected_encoder(
    spec: ArtifactSpec, encoder_uri: str, embeddings_uri: str, *, dimensions: int, seed: int
) -> EncoderBundleManifest:
    """Publish the bundle of `encoder_uri` with a PCA fitted on its embeddings of the training split."""
    vectors = vectors_of(read_embeddings(embeddings_uri, splits=("train",)))
    projection = fit_projection(vectors, dimensions, seed=seed)

    def write_files(folder: Path) -> None:
        with storage.readable_folder(encoder_uri) as source:
            copy_checkpoint(source, folder)
        projection.save(folder)

    encoder = artifacts.open_artifact(encoder_uri, EncoderBundleManifest)
    return publish_bundle(
        spec,
        write_files,
        text=preprocessing_of(encoder_uri)[1],
        parent_space_id=encoder.space_id,
        training_run=encoder.training_run,
        num_items=len(vectors),
    )


def publish_projected_embeddings(
    spec: ArtifactSpec, embeddings_uri: str, encoder_uri: str
) -> EmbeddingSetManifest:
    """Publish the EmbeddingSet at `embeddings_uri` in the space of the projected bundle, file by file."""
    started = time.monotonic()
    encoder = artifacts.open_artifact(encoder_uri, EncoderBundleManifest)
    with storage.readable_folder(encoder_uri) as folder:
        projection = load_projection(folder)
    assert projection is not None, f"{encoder_uri} has no projection"
    artifacts.begin(spec)
    source = artifacts.open_artifact(embeddings_uri, EmbeddingSetManifest)
    for name in vector_files(source):
        with storage.open_input(storage.join(embeddings_uri, name)) as stream:
            table = pq.read_table(stream)
        vectors = projection.apply(vectors_of(table))
        column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
        columns = {**{key: table.column(key) for key in table.schema.names}, EMBEDDING: column}
        with storage.writable_file(storage.join(spec.uri, name)) as path:
            pq.write_table(pa.table(columns, schema=embedding_schema(vectors.shape[1])), path)
    seconds = time.monotonic() - started
    return publish_embedding_set(spec, encoder, seconds, num_refused=source.num_refused)
