"""Upserts and deletes of items: the photo is kept, the change is durable in the log, then acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxtyping import Float32
from numpy import ndarray

from raysys.columns import content_hash
from raysys.errors import InputError
from raysys.index.value_types import require_one_type
from raysys.serve.append_process import AppendProcess
from raysys.serve.schemas import ItemFields
from raysys.store.changes import Change, Delete, Upsert
from raysys.store.photos import keep_photo


class NoStore(InputError):
    """The service has no database for changes."""

    http_status = 409
    code = "no_store"


class EmbeddedItem(NamedTuple):
    """An item to put, with its vectors by space id."""

    item_id: str
    fields: ItemFields
    photo: bytes | None
    vectors: Mapping[str, Float32[ndarray, " d"]]


class ItemWriterConfig(NamedTuple):
    """Where changes and photos go; photos are not kept without a `root`."""

    url: str
    timeout_s: float
    root: str | None


class ItemWriter:
    """Appends changes to a log, and keeps photos below a root. Raises: as `AppendProcess`."""

    def __init__(self, config: ItemWriterConfig) -> None:
        self._log, self._root = AppendProcess(config.url, config.timeout_s), config.root

    async def write(self, changes: Sequence[EmbeddedItem | Delete]) -> list[int]:
        """Make all of the changes durable, or none; their sequence numbers.

        Raises: InputError for a text or attribute that cannot be stored, and for attributes of these items
        that no column of an index holds together; StoreFailed, StorageError.
        """
        last = {change.item_id: change for change in changes}
        upserts = [change for change in last.values() if isinstance(change, EmbeddedItem)]
        require_one_type({upsert.item_id: upsert.fields.attributes for upsert in upserts})
        if any(isinstance(change, EmbeddedItem) and change.photo for change in changes):
            return await self._log.append(await asyncio.to_thread(self._kept, changes))
        return await self._log.append(self._kept(changes))

    def _kept(self, changes: Sequence[EmbeddedItem | Delete]) -> list[Change]:
        """The changes, whose photos are kept: a logged change never refers to one that is not there."""
        return [change if isinstance(change, Delete) else self._upsert(change) for change in changes]

    def _upsert(self, item: EmbeddedItem) -> Upsert:
        fields, photo = item.fields, item.photo
        return Upsert(
            item_id=item.item_id,
            title=fields.title,
            attributes=fields.attributes,
            content_hash=content_hash(photo or b"", fields.title),
            photo=keep_photo(self._root, photo) if photo and self._root is not None else None,
            vectors=item.vectors,
            group=fields.group,
        )
