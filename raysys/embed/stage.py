"""`raysys embed`: an EmbeddingSet of the catalogue; with `projection.dimensions` also its PCA projection."""

from __future__ import annotations

from raysys.artifacts import ArtifactSpec, Manifest, specs
from raysys.artifacts.build import Step
from raysys.config import Config
from raysys.shards.reader import shards_of


def steps(config: Config) -> list[Step]:
    """The EmbeddingSet; with `projection.dimensions` also the projected bundle and its EmbeddingSet."""
    layout = specs.layout_of(config)
    embed = Step.single(
        layout.embeddings, lambda: specs.embeddings(config), lambda spec: _embed(config, spec)
    )
    if config.projection.dimensions is None:
        return [embed]
    fit_projection = Step.single(
        layout.projected_encoder,
        lambda: specs.projected_encoder(config),
        lambda spec: _fit_projection(config, spec),
    )
    project = Step.single(
        layout.projected_embeddings,
        lambda: specs.projected_embeddings(config),
        lambda spec: _project(config, spec),
    )
    return [embed, fit_projection, project]


def _embed(config: Config, spec: ArtifactSpec) -> Manifest:
    from raysys.cluster import session
    from raysys.embed import job
    from raysys.encoder.bundle import preprocessing_of

    session.connect(config.ray)
    layout = specs.layout_of(config)
    shards = [shard for split in config.embed.splits for shard in shards_of(layout.shards(split))]
    image, _ = preprocessing_of(layout.encoder)
    return job.embed(spec, layout.encoder, shards, image, config.embed, config.stream)


def _fit_projection(config: Config, spec: ArtifactSpec) -> Manifest:
    from raysys.embed import pca

    assert config.projection.dimensions is not None
    layout = specs.layout_of(config)
    return pca.publish_projected_encoder(
        spec,
        layout.encoder,
        layout.embeddings,
        dimensions=config.projection.dimensions,
        seed=config.encoder.seed,
    )


def _project(config: Config, spec: ArtifactSpec) -> Manifest:
    from raysys.embed import pca

    layout = specs.layout_of(config)
    return pca.publish_projected_embeddings(
        spec,
        layout.embeddings,
        layout.projected_encoder,
        max_bad_fraction=config.stream.max_bad_fraction,
    )
