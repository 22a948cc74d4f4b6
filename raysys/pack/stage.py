"""`raysys pack`: a catalogue becomes one ShardSet a split."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, CatalogManifest, Manifest, specs
from raysys.artifacts.build import Step
from raysys.config import Config
from raysys.config.schema import SPLITS, ColumnSplit, DrawnCatalog, FolderCatalog, TableCatalog
from raysys.pack.catalog import sources
from raysys.pack.fingerprint import fingerprint
from raysys.pack.shard_sets import Catalog, pack_shard_sets
from raysys.synth.catalog import as_table, draw_catalog


def steps(config: Config) -> list[Step]:
    """Draw the catalogue if the configuration asks for a drawn one, then pack it."""
    catalog = functools.cache(lambda: _open_catalog(config))

    def shard_sets() -> list[ArtifactSpec]:
        columns, entry = catalog().section.columns, catalog().entry
        return [specs.shard_set(config, split, columns, entry) for split in SPLITS]

    def pack(wanted: Sequence[ArtifactSpec]) -> list[Manifest]:
        from raysys.cluster import session
        from raysys.pack.ray_executor import RayExecutor

        session.connect(config.ray)
        by_split: dict[str, ArtifactSpec] = dict(zip(SPLITS, wanted, strict=True))
        made = pack_shard_sets(catalog(), config.pack, by_split, RayExecutor())
        return [made[split] for split in SPLITS]

    drawn = [_draw_step(config, config.catalog)] if isinstance(config.catalog, DrawnCatalog) else []
    return [*drawn, Step(shard_sets, pack)]


def _draw_step(config: Config, section: DrawnCatalog) -> Step:
    def draw(spec: ArtifactSpec) -> Manifest:
        from raysys.cluster.task_map import connected_map

        return draw_catalog(spec, section, connected_map(config.ray))

    return Step.single(lambda: specs.drawn_catalog(config), draw)


def _open_catalog(config: Config) -> Catalog:
    """The files of the catalogue with the fingerprint of their rows, which reads them once.

    Raises: MissingArtifact if the catalogue is a drawn one that was not drawn yet.
    """
    table: TableCatalog | FolderCatalog
    if isinstance(config.catalog, DrawnCatalog):
        uri = specs.layout_of(config).catalog
        artifacts.open_artifact(uri, CatalogManifest)
        table = as_table(uri)
    else:
        table = config.catalog
    split = config.pack.split
    files = sources(table)
    counted = fingerprint(table, files, split.column if isinstance(split, ColumnSplit) else None)
    return Catalog(table, files, counted.num_rows, counted.entry)
