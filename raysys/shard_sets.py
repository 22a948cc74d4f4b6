"""What stands beside the tars of a ShardSet, for whoever writes, reads or examines one."""

from __future__ import annotations

import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import storage
from raysys.records import ITEM_ID, SHARD, TITLE
from raysys.tars import key_of

LEDGER = "ledger.parquet"  # what was refused, and why
ITEMS = "items.parquet"  # every item: its shard, its group, a hash of all that it says
TOMBSTONES = "tombstones.parquet"  # items of inherited shards that a later catalogue no longer has
TITLE_KEYS = (TITLE, "caption", "text")  # where a json holds the title: ours, img2dataset's, others'


def dead_keys(tombstones_uri: str, shard_uri: str) -> set[str]:
    """The keys in a shard that count no more."""
    with storage.open_input(tombstones_uri) as stream:
        table = pq.read_table(stream, columns=[SHARD, ITEM_ID])
    dead = table.filter(pc.equal(table.column(SHARD), shard_uri)).column(ITEM_ID).to_pylist()
    return {key_of(item_id) for item_id in dead}
