"""`raysys index --frontier`: publish the Frontier; no index is built or altered."""

from __future__ import annotations

from raysys.artifacts import ArtifactSpec, Manifest, specs
from raysys.artifacts.build import Step
from raysys.config import Config
from raysys.config.schema import SPLITS


def steps(config: Config) -> list[Step]:
    """One step: measure every size and encoding and publish the table and the plot."""
    uri = specs.layout_of(config).frontier
    return [Step.single(uri, lambda: specs.frontier(config), lambda spec: _measure(config, spec))]


def _measure(config: Config, spec: ArtifactSpec) -> Manifest:
    from raysys.evaluate.frontier.publish import publish_frontier

    layout = specs.layout_of(config)
    shard_uris: dict[str, str] = {split: layout.shards(split) for split in SPLITS}
    return publish_frontier(spec, config, layout.embeddings, shard_uris, specs.latent_uri(config))
