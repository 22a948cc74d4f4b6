"""Item ids are unique: checked in the tables beside the shards before the work, and in the vectors after it.

An index cannot tell two items of one id apart. `raysys pack` writes each id once, but shards that were copied
or repaired may share an id.
"""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys import storage
from raysys.artifacts import ShardSetManifest
from raysys.artifacts.embedding_set import LEDGER, require_unique_ids
from raysys.artifacts.intact import damage_named
from raysys.columns import ITEM_ID, SHARD
from raysys.shards.reader import ShardRef
from raysys.shards.shard_set import ITEMS

_REMEDY = "make the ids unique, and pack again"
_SCHEMA = pa.schema([(SHARD, pa.string()), (ITEM_ID, pa.string())])


def require_unique_items(uri: str, shards: Sequence[ShardRef]) -> None:
    """Check the live items of the shards that the EmbeddingSet at `uri` is made of.

    A ShardSet without a table of items is not known before its shards are read, and is left out.
    Raises: DamagedData that names the first repeated ids and their shards.
    """
    items_uris = dict.fromkeys(shard.items_uri or _items_beside(shard) for shard in shards)
    tables = [_items_of(items_uri) for items_uri in items_uris if storage.exists(items_uri)]
    uris = pa.array([shard.uri for shard in shards], pa.string())
    table = pa.concat_tables([_SCHEMA.empty_table(), *tables])
    table = table.filter(pc.is_in(table.column(SHARD), uris))
    require_unique_ids(uri, table, _REMEDY)


def require_unique_vectors(uri: str) -> None:
    """Check the parts at `uri` before they are published. Raises: as `require_unique_items`."""
    tables = [_SCHEMA.empty_table()]
    for name in storage.list_files(uri):
        if name.endswith(".parquet") and name != LEDGER:
            with storage.open_input(storage.join(uri, name)) as stream:
                tables.append(pq.read_table(stream, columns=_SCHEMA.names).select(_SCHEMA.names))
    require_unique_ids(uri, pa.concat_tables(tables), _REMEDY)


def _items_beside(shard: ShardRef) -> str:
    return f"{shard.uri.rpartition('/')[0]}/{ITEMS}"


def _items_of(items_uri: str) -> pa.Table:
    """The items of a ShardSet with the URIs of their shards; the table has names for tars beside it."""
    folder, _, name = items_uri.rpartition("/")
    with damage_named(folder, ShardSetManifest, [name]), storage.open_input(items_uri) as stream:
        table = pq.read_table(stream, columns=_SCHEMA.names)
    names = table.column(SHARD)
    uris = pc.if_else(pc.match_substring(names, "/"), names, pc.binary_join_element_wise(folder, names, "/"))
    return pa.table([uris, table.column(ITEM_ID)], schema=_SCHEMA)
