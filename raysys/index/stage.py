"""`raysys index`: builds an IndexBundle with measured recall from an EmbeddingSet."""

from __future__ import annotations

from raysys.artifacts import ArtifactSpec, Manifest, specs
from raysys.artifacts.build import Step
from raysys.config import Config


def steps(config: Config) -> list[Step]:
    """One step: the index of the served embeddings, or of `index.embeddings`."""

    def build(spec: ArtifactSpec) -> Manifest:
        from raysys.cluster.task_map import connected_map
        from raysys.index.build import publish_index

        embeddings = specs.served_embeddings(config)
        return publish_index(spec, embeddings, config.index, connected_map(config.ray))

    return [Step.single(specs.served_index(config), lambda: specs.index(config), build)]
