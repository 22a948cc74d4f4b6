"""`raysys embed`: an EmbeddingSet of the catalogue; with `projection.dimensions` also its PCA projection.

With `embed.encoder` or `embed.vectors` only an EmbeddingSet by that encoder or of those vectors, at
`embeddings/<embed.to>`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from raysys import storage
from raysys.artifacts import (
    ArtifactSpec,
    EncoderBundleManifest,
    InputEntry,
    Manifest,
    Parity,
    open_artifact,
    specs,
)
from raysys.artifacts.build import Step
from raysys.artifacts.vectors import vectors_input
from raysys.config import Config
from raysys.errors import InputError
from raysys.shards.reader import ShardRef, require_items, shards_of

if TYPE_CHECKING:
    from raysys.encoder.image_encoder import ImageEncoderInfo
    from raysys.stream.decode import EmbeddingDecoder


def steps(config: Config) -> list[Step]:
    """The EmbeddingSet; with `projection.dimensions` also the projected bundle and its EmbeddingSet."""
    layout = specs.layout_of(config)
    if config.embed.encoder is not None:
        return [_step_of_other_encoder(config)]
    if config.embed.vectors is not None:
        return [_step_of_vectors(config)]
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


def _step_of_other_encoder(config: Config) -> Step:
    """The EmbeddingSet of `embed.encoder`, by the same machinery."""
    from raysys.encoder.image_encoder import describe_image_encoder

    assert config.embed.encoder is not None, "the caller has checked it"
    assert config.embed.to is not None, "the configuration has both or neither"
    describe = functools.cache(functools.partial(describe_image_encoder, config.embed.encoder))
    uri = specs.layout_of(config).embeddings_named(config.embed.to)

    def spec() -> ArtifactSpec:
        encoder = describe()
        return specs.embeddings_by(config, InputEntry(uri=encoder.source, fingerprint=encoder.space_id), uri)

    return Step.single(
        uri, spec, lambda spec: _embed_by(config, spec, _shards_with_items(config), describe())
    )


def _step_of_vectors(config: Config) -> Step:
    """The EmbeddingSet of the vectors of `embed.vectors`."""
    assert config.embed.vectors is not None, "the caller has checked it"
    assert config.embed.to is not None, "the configuration has both or neither"
    source_uri = storage.absolute(config.embed.vectors)
    source = functools.cache(functools.partial(vectors_input, source_uri))
    uri = specs.layout_of(config).embeddings_named(config.embed.to)
    if f"{source_uri}/".startswith(f"{uri}/"):
        raise InputError(
            f"embed.vectors: {source_uri} is in the folder of the set that is made from it; move it, or "
            "choose another embed.to (--to NAME)"
        )

    def build(spec: ArtifactSpec) -> Manifest:
        from raysys.cluster.task_map import connected_map
        from raysys.embed.join import publish_joined
        from raysys.embed.unique import require_unique_items

        shards = _shards_with_items(config)
        require_unique_items(spec.uri, shards)
        return publish_joined(spec, source(), shards, config.stream, connected_map(config.ray))

    return Step.single(uri, lambda: specs.joined_embeddings(config, source(), uri), build)


def _embed(config: Config, spec: ArtifactSpec) -> Manifest:
    from raysys.encoder.image_encoder import describe_image_encoder

    shards = _shards_with_items(config)
    _require_items_for_projection(config)
    return _embed_by(config, spec, shards, describe_image_encoder(specs.layout_of(config).encoder))


def _shards_with_items(config: Config) -> list[ShardRef]:
    """The shards of `embed.splits`. Raises: as `require_items`."""
    layout = specs.layout_of(config)
    require_items([layout.shards(split) for split in config.embed.splits])
    return [shard for split in config.embed.splits for shard in shards_of(layout.shards(split))]


def _embed_by(
    config: Config, spec: ArtifactSpec, shards: list[ShardRef], encoder: ImageEncoderInfo
) -> Manifest:
    from raysys.cluster import session
    from raysys.embed import job
    from raysys.embed.delta import find_earlier
    from raysys.embed.unique import require_unique_items

    require_unique_items(spec.uri, shards)
    earlier = find_earlier(spec, encoder.space_id, config.embed)
    session.connect(config.ray)
    return job.embed(
        spec,
        encoder,
        shards,
        config.embed,
        config.stream,
        earlier=earlier,
        check=_parity_check(config, encoder.source, shards),
        may_grow=session.may_grow(config.ray),
    )


def _parity_check(
    config: Config, source: str, shards: Sequence[ShardRef]
) -> Callable[[EmbeddingDecoder], Parity | None] | None:
    """The parity gate, on a GPU as a Ray task, otherwise in this process; None without golden items."""
    from raysys.cluster.task_map import connected_map
    from raysys.embed import parity

    golden = parity.golden_items(shards, config.embed.parity_items)
    if not len(golden):
        return None
    return functools.partial(
        parity.check_parity,
        source,
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
