"""Vectors of items in every loaded space: of new items, and of those that were put before."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from jaxtyping import Float32
from numpy import ndarray

from raysys import storage
from raysys.artifacts.served import ServedPair
from raysys.encoder.preprocess import photo_pixels
from raysys.errors import MissingError, RaysysError, UnreadableImage
from raysys.serve.deadline import NEVER
from raysys.serve.encoder_deployment import EncoderInfo
from raysys.serve.follower import FollowerConfig
from raysys.serve.item_writer import EmbeddedItem
from raysys.serve.metrics import timed
from raysys.serve.versions import Versions
from raysys.store.change_log import ChangeLog
from raysys.store.changes import Delete, LoggedChange, Upsert
from raysys.tracking.logs import log

EmbedPhoto: TypeAlias = Callable[[ServedPair, bytes], Awaitable[Float32[ndarray, " d"]]]
_PAGE = 64  # photos in memory


async def embed_photo(
    encoder: Any, pair: ServedPair, info: EncoderInfo, photo: bytes
) -> Float32[ndarray, " d"]:
    """The vector of an encoded photo by the encoder of a pair. Raises: UnreadableImage."""
    with timed("decode"):
        pixels = await asyncio.to_thread(photo_pixels, photo, info.image)
    with timed("encode"):
        vector: ndarray
        [vector] = await encoder.embed_pixels.remote(pair.generation, [pixels], [NEVER])
    return vector


async def in_all_spaces(
    items: Sequence[EmbeddedItem | Delete], versions: Versions, embed: EmbedPhoto
) -> list[EmbeddedItem | Delete]:
    """The items with a vector in the space of every loaded pair; the same ones if they have them.

    An item without a photo, or whose photo another encoder than the active one cannot embed now, stays
    without: the next switch embeds it.
    """
    return [item if isinstance(item, Delete) else await _completed(item, versions, embed) for item in items]


async def _completed(item: EmbeddedItem, versions: Versions, embed: EmbedPhoto) -> EmbeddedItem:
    for pair in (versions.active, *versions.loaded):
        if item.photo is None or pair.encoder_uri is None or pair.space_id in item.vectors:
            continue
        try:
            vector = await embed(pair, item.photo)
        except RaysysError as error:
            if pair == versions.active:
                raise
            log.warning(
                "serve: item '%s' has no vector of generation %d: %s", item.item_id, pair.generation, error
            )
            continue
        item = item._replace(vectors={**item.vectors, pair.space_id: vector})
    return item


@dataclass
class MissingVectors:
    """Embeds the items of a log that were put without a vector of the space of a pair."""

    changes: FollowerConfig
    encoder: Any
    pair: ServedPair

    async def embed(self) -> int:
        """Embed all of them; the number of those that cannot be, because they have no readable photo.

        Raises: StoreFailed, StorageError.
        """
        info: EncoderInfo = await self.encoder.info.remote(self.pair.generation)
        log_of_changes = await asyncio.to_thread(ChangeLog, self.changes["url"], self.changes["timeout_s"])
        after = num_left = 0
        try:
            while page := await asyncio.to_thread(
                log_of_changes.without_vector, self.pair.space_id, _PAGE, after
            ):
                found = await asyncio.gather(*(self._vector(logged, info) for logged in page))
                vectors = {
                    logged.sequence: vector
                    for logged, vector in zip(page, found, strict=True)
                    if vector is not None
                }
                await asyncio.to_thread(log_of_changes.add_vectors, self.pair.space_id, vectors)
                num_left += len(page) - len(vectors)
                after = page[-1].sequence
        finally:
            log_of_changes.close()
        return num_left

    async def _vector(self, logged: LoggedChange, info: EncoderInfo) -> Float32[ndarray, " d"] | None:
        change = logged.change
        if not isinstance(change, Upsert) or change.photo is None:
            return None
        try:
            photo = await asyncio.to_thread(storage.read_bytes, change.photo.uri)
            return await embed_photo(self.encoder, self.pair, info, photo)
        except (MissingError, UnreadableImage) as error:
            log.warning("serve: item '%s' cannot be embedded: %s", change.item_id, error)
            return None
