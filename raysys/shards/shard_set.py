"""What stands beside the tars of a ShardSet, for whoever writes, reads or examines one."""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import storage
from raysys.artifacts import ShardSetManifest, open_artifact
from raysys.columns import ITEM_ID, SHARD, TITLE
from raysys.errors import InputError
from raysys.shards.tar import key_of

LEDGER = "ledger.parquet"  # what was refused, and why
ITEMS = "items.parquet"  # every item: its shard, its group, a hash of all that it says
TOMBSTONES = "tombstones.parquet"  # items of inherited shards that a later catalogue no longer has
TITLE_KEYS = (TITLE, "caption", "text")  # where a json holds the title: ours, img2dataset's, others'


def require_attributes(uri: str, names: Iterable[str], wanted_by: str) -> None:
    """Refuse a ShardSet none of whose items has an attribute that a setting names.

    Raises: InputError for the first that is missing.
    """
    known = open_artifact(uri, ShardSetManifest).item_schema
    for name in names:
        if name not in known:
            raise InputError(
                f"{uri}: no item has the attribute '{name}' that {wanted_by} names (found: "
                f"{', '.join(known) or 'none'}); pack again with it, or take it out of {wanted_by}"
            )


def dead_keys(tombstones_uri: str, shard_uri: str) -> set[str]:
    """The keys in a shard that count no more."""
    with storage.open_input(tombstones_uri) as stream:
        table = pq.read_table(stream, columns=[SHARD, ITEM_ID])
    dead = table.filter(pc.equal(table.column(SHARD), shard_uri)).column(ITEM_ID).to_pylist()
    return {key_of(item_id) for item_id in dead}
