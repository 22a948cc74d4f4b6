"""Write a drawn catalogue: a table and photos in the form that a user would bring, and the ground truth.

`latent.parquet` contains the latent attributes of each item. Only the evaluation reads it; training,
embedding and serving do not.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Sequence
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, CatalogManifest, FileEntry
from raysys.artifacts.layout import LATENT
from raysys.columns import ITEM_ID
from raysys.config.schema import Columns, DrawnCatalog, TableCatalog
from raysys.parallel import Parallel
from raysys.synth import DrawnItem, generate_items, render_item
from raysys.tracking import logs

TABLE = "items.csv"
LATENT_ATTRIBUTES = ("kind", "colour", "pattern", "style")
_PUBLIC = (ITEM_ID, "title", "image", "seller", "category", "price", "listed_at")
_ITEMS_PER_TASK = 250


def as_table(uri: str) -> TableCatalog:
    """The configuration with which `raysys pack` reads a drawn catalogue, as any other table."""
    attributes = {"seller": "text", "category": "text", "price": "integer", "listed_at": "text"}
    return TableCatalog(path=storage.join(uri, TABLE), columns=Columns(attributes=attributes))


def draw_catalog(spec: ArtifactSpec, section: DrawnCatalog, parallel: Parallel) -> CatalogManifest:
    """Draw the catalogue and publish it as `spec`."""
    started = time.monotonic()
    artifacts.begin(spec)
    items = generate_items(section.num_items, section.seed)
    chunks = [items[start : start + _ITEMS_PER_TASK] for start in range(0, len(items), _ITEMS_PER_TASK)]
    files: dict[str, FileEntry] = {}
    with logs.progress("draw", len(items)) as advance:
        for chunk_files in parallel(partial(_draw_chunk, spec.uri, section.size_px), chunks):
            files |= chunk_files
            advance(len(files))
    storage.write_bytes(storage.join(spec.uri, TABLE), _table(items))
    with storage.writable_file(storage.join(spec.uri, LATENT)) as path:
        pq.write_table(_latent(items), path)
    files |= artifacts.describe_files(spec.uri, only=(TABLE, LATENT))
    common = artifacts.common_fields(spec, files, len(items), time.monotonic() - started)
    return artifacts.publish(spec.uri, CatalogManifest(**common))


def _draw_chunk(uri: str, size_px: int, items: Sequence[DrawnItem]) -> dict[str, FileEntry]:
    files = {}
    for item in items:
        data = render_item(item, size_px)
        storage.write_bytes(storage.join(uri, _photo_path(item)), data, durable=False)
        files[_photo_path(item)] = FileEntry(bytes=len(data), sha256=storage.sha256_of_bytes(data))
    return files


def _photo_path(item: DrawnItem) -> str:
    return f"images/{item.item_id}.jpg"


def _table(items: Sequence[DrawnItem]) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_PUBLIC)
    for item in items:
        writer.writerow(
            [
                item.item_id,
                item.title,
                _photo_path(item),
                item.seller,
                item.category,
                item.price,
                item.listed_at,
            ]
        )
    return text.getvalue().encode()


def _latent(items: Sequence[DrawnItem]) -> pa.Table:
    columns = {ITEM_ID: [item.item_id for item in items]}
    columns |= {name: [getattr(item, name) for item in items] for name in LATENT_ATTRIBUTES}
    return pa.table({**columns, "relisted_from": [item.relisted_from for item in items]})
