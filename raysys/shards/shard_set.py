"""Files beside the tars of a ShardSet, and checks that every writer and reader of one shares."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import storage
from raysys.artifacts import ShardSetManifest, open_artifact
from raysys.artifacts.intact import damage_named
from raysys.columns import ITEM_ID, SHARD, TITLE
from raysys.errors import InputError
from raysys.shards.tar import key_of

LEDGER = "ledger.parquet"  # refused items and the reasons
ITEMS = "items.parquet"  # every item: its shard, its group, and a hash of its photo, title and attributes
TOMBSTONES = "tombstones.parquet"  # items of inherited shards that a later catalogue removed or changed
TITLE_KEYS = (TITLE, "caption", "text")  # JSON keys of a title: of raysys, of img2dataset, of other tools


def require_attributes(uri: str, names: Iterable[str], setting: str) -> None:
    """Check that the ShardSet's schema has every attribute that a setting names.

    Raises: InputError for the first attribute that no item has.
    """
    schema = open_artifact(uri, ShardSetManifest).item_schema
    for name in names:
        if name not in schema:
            raise InputError(
                f"{uri}: no item has the attribute '{name}' from {setting} (found: "
                f"{', '.join(schema) or 'none'}); pack again with this attribute, or remove it from {setting}"
            )


def tombstoned_keys(tombstones_uri: str, shard_uri: str) -> set[str]:
    """The sample keys of a shard that the tombstones remove."""
    folder, _, name = tombstones_uri.rpartition("/")
    with damage_named(folder, ShardSetManifest, [name]), storage.open_input(tombstones_uri) as stream:
        table = pq.read_table(stream, columns=[SHARD, ITEM_ID])
    removed = table.filter(pc.equal(table.column(SHARD), shard_uri)).column(ITEM_ID).to_pylist()
    return {key_of(item_id) for item_id in removed}
