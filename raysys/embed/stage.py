"""`raysys embed`: an EmbeddingSet of the catalogue; with `projection.dimensions` also its PCA projection."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest, Manifest, Parity, open_artifact, specs
from raysys.artifacts.build import Step
from raysys.config import Config
from raysys.errors import InputError
from raysys.shards.reader import ShardRef, require_items, shards_of

if TYPE_CHECKING:
    from raysys.stream.decode import EmbeddingDecoder


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
    from raysys.embed.delta import find_earlier
    from raysys.embed.unique import require_unique_items
    from raysys.encoder.bundle import preprocessing_of

    layout = specs.layout_of(config)
    require_items([layout.shards(split) for split in config.embed.splits])
    _require_items_for_projection(config)
    shards = [shard for split in config.embed.splits for shard in shards_of(layout.shards(split))]
    require_unique_items(layout.embeddings, shards)
    space_id = open_artifact(layout.encoder, EncoderBundleManifest).space_id
    earlier = find_earlier(spec, space_id, config.embed)
    session.connect(config.ray)
    image, _ = preprocessing_of(layout.encoder)
    return job.embed(
        spec,
        layout.encoder,
        shards,
        image,
        config.embed,
        config.stream,
        earlier=earlier,
        check=_parity_check(config, layout.encoder, shards),
        may_grow=session.may_grow(config.ray),
    )


def _parity_check(
    config: Config, encoder_uri: str, shards: Sequence[ShardRef]
) -> Callable[[EmbeddingDecoder], Parity | None] | None:
    """The parity gate, on a GPU as a Ray task, otherwise in this process; None without golden items."""
    from raysys.cluster.task_map import connected_map
    from raysys.embed import parity

    golden = parity.golden_items(shards, config.embed.parity_items)
    if not len(golden):
        return None
    return functools.partial(
        parity.check_parity,
        encoder_uri,
        golden,
        parity.ParityPaths.of(config),
        config.embed.parity_tolerance,
        connected_map(config.ray, num_gpus=1) if config.embed.use_gpu else map,
    )


def _require_items_for_projection(config: Config) -> None:
    """Check what the PCA needs before anything is embedded. Raises: InputError."""
    dimensions, layout = config.projection.dimensions, specs.layout_of(config)
    if dimensions is None:
        return
    if "train" not in config.embed.splits:
        raise InputError(
            f"projection.dimensions: {dimensions}, but the PCA is fitted on the train split and embed.splits "
            f"has {', '.join(config.embed.splits)} only; add train, or set projection.dimensions=null"
        )
    num_items = sum(shard.num_items for shard in shards_of(layout.shards("train")))
    length = open_artifact(layout.encoder, EncoderBundleManifest).dimensions
    if dimensions > length or num_items < max(dimensions, 2):
        limit = min(num_items, length)
        raise InputError(
            f"projection.dimensions: {dimensions} components cannot be fitted to the {num_items} items of "
            f"the train split and vectors of {length} dimensions; set it to "
            + (f"{limit} or less, or to null" if limit > 1 else "null")
        )


def _fit_projection(config: Config, spec: ArtifactSpec) -> Manifest:
    from raysys.cluster.task_map import connected_map
    from raysys.embed import pca

    layout = specs.layout_of(config)
    return pca.publish_projected_encoder(
        spec, layout.encoder, layout.embeddings, config.projection, connected_map(config.ray)
    )


def _project(config: Config, spec: ArtifactSpec) -> Manifest:
    from raysys.cluster.task_map import connected_map
    from raysys.embed import pca

    layout = specs.layout_of(config)
    return pca.publish_projected_embeddings(
        spec,
        layout.embeddings,
        layout.projected_encoder,
        connected_map(config.ray),
        max_bad_fraction=config.stream.max_bad_fraction,
    )
