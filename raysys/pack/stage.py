"""`raysys pack`: a catalogue becomes one ShardSet per split."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, CatalogManifest, Manifest, ShardSetManifest, specs
from raysys.artifacts.build import Step
from raysys.config import Config
from raysys.config.schema import SPLITS, DrawnCatalog, FolderCatalog, TableCatalog, WebDatasetCatalog
from raysys.pack.build import pack_shard_sets
from raysys.pack.catalog import Catalog, open_catalog
from raysys.pack.paths import is_publishing
from raysys.pack.photo_uris import UNREACHABLE
from raysys.pack.webdataset.build import index_shard_sets
from raysys.pack.webdataset.listing import open_webdataset
from raysys.synth.catalog import as_table, draw_catalog


def steps(config: Config) -> list[Step]:
    """Generate the drawn catalogue if the configuration has one, then pack; a WebDataset is indexed."""
    if isinstance(config.catalog, WebDatasetCatalog):
        return [_index_step(config, config.catalog)]
    catalog = functools.cache(lambda: _open_catalog(config))

    def shard_sets() -> list[ArtifactSpec]:
        columns, entry = catalog().section.columns, catalog().entry
        return [specs.shard_set(config, split, columns, entry) for split in SPLITS]

    def pack(shard_set_specs: Sequence[ArtifactSpec]) -> list[Manifest]:
        from raysys.cluster import session
        from raysys.pack.ray_executor import RayExecutor

        session.connect(config.ray)
        by_split: dict[str, ArtifactSpec] = dict(zip(SPLITS, shard_set_specs, strict=True))
        manifests = pack_shard_sets(catalog(), config.pack, by_split, RayExecutor())
        return [manifests[split] for split in SPLITS]

    draw = [_draw_step(config, config.catalog)] if isinstance(config.catalog, DrawnCatalog) else []
    uris = [specs.layout_of(config).shards(split) for split in SPLITS]
    return [*draw, Step(uris, shard_sets, pack, lambda manifest: _is_final(manifest, config))]


def _index_step(config: Config, section: WebDatasetCatalog) -> Step:
    """Index the tars of a WebDataset."""
    catalog = functools.cache(lambda: open_webdataset(section, config.pack))

    def shard_sets() -> list[ArtifactSpec]:
        return [specs.indexed_shard_set(config, split, section.columns, catalog().entry) for split in SPLITS]

    def index(shard_set_specs: Sequence[ArtifactSpec]) -> list[Manifest]:
        from raysys.cluster import session
        from raysys.pack.ray_executor import RayExecutor

        session.connect(config.ray)
        by_split: dict[str, ArtifactSpec] = dict(zip(SPLITS, shard_set_specs, strict=True))
        manifests = index_shard_sets(catalog(), config.pack, by_split, RayExecutor())
        return [manifests[split] for split in SPLITS]

    uris = [specs.layout_of(config).shards(split) for split in SPLITS]
    return Step(uris, shard_sets, index, lambda manifest: _is_final(manifest, config))


def _is_final(manifest: Manifest, config: Config) -> bool:
    """Whether an up-to-date ShardSet stays: no pack is to be completed, and no photo to be tried again."""
    assert isinstance(manifest, ShardSetManifest)
    is_to_be_retried = config.pack.retry_refused and UNREACHABLE in manifest.refused_by_reason
    return not is_to_be_retried and not is_publishing(specs.layout_of(config).shard_sets)


def _draw_step(config: Config, section: DrawnCatalog) -> Step:
    def draw(spec: ArtifactSpec) -> Manifest:
        from raysys.cluster.task_map import connected_map

        return draw_catalog(spec, section, connected_map(config.ray))

    return Step.single(specs.layout_of(config).catalog, lambda: specs.drawn_catalog(config), draw)


def _open_catalog(config: Config) -> Catalog:
    """Open the configured catalogue, which reads its rows once.

    Raises: MissingArtifact if it is a drawn catalogue that was not generated yet.
    """
    assert not isinstance(config.catalog, WebDatasetCatalog), "it has a step of its own"
    table: TableCatalog | FolderCatalog
    if isinstance(config.catalog, DrawnCatalog):
        uri = specs.layout_of(config).catalog
        artifacts.open_artifact(uri, CatalogManifest)
        table = as_table(uri)
    else:
        table = config.catalog
    return open_catalog(table, config.pack.split)
