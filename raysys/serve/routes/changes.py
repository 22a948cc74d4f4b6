"""Routes of changes of items: put one, delete one, and up to 64 changes at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from fastapi import APIRouter, Request

from raysys.artifacts import require_same_space
from raysys.artifacts.served import ServedPair
from raysys.errors import InputError
from raysys.serve.bodies import item_photo, read_item, read_json
from raysys.serve.gateway_state import GatewayState, gateway_state
from raysys.serve.index_service import IndexInfo
from raysys.serve.item_vectors import in_all_spaces
from raysys.serve.item_writer import EmbeddedItem, ItemWriter, NoStore
from raysys.serve.query_vectors import given_vector
from raysys.serve.schemas import (
    ChangeResponse,
    ChangesRequest,
    ChangesResponse,
    DeleteRequest,
    ItemFields,
    UpsertRequest,
)
from raysys.store.changes import Delete

router = APIRouter()


@router.put("/v1/items/{item_id:item_id}")
async def put(item_id: str, request: Request) -> ChangeResponse:
    """Add an item, or replace it: durable when acknowledged, then found within a second."""
    state = gateway_state()
    fields, photo = await read_item(request, state.section)
    with state.encoder_place(is_needed=photo is not None):
        item = await _embedded(state, item_id, fields, photo)
    [response] = await _write(state, [item])
    return response


@router.delete("/v1/items/{item_id:item_id}")
async def delete(item_id: str) -> ChangeResponse:
    """Remove an item: durable when acknowledged, and then no longer found. An unknown one is no error."""
    [response] = await _write(gateway_state(), [Delete(item_id)])
    return response


@router.post("/v1/changes")
async def changes(request: Request) -> ChangesResponse:
    """Up to 64 upserts and deletes, all or none."""
    state = gateway_state()
    body: ChangesRequest = await read_json(ChangesRequest, request, state.section)
    photos = [
        item_photo(change, f"changes.{number}.image_base64", state.section)
        if isinstance(change, UpsertRequest)
        else None
        for number, change in enumerate(body.changes)
    ]
    with state.encoder_place(is_needed=any(photos)):
        embedded = await asyncio.gather(
            *(_change(state, change, photo) for change, photo in zip(body.changes, photos, strict=True))
        )
    return ChangesResponse(changes=await _write(state, embedded))


async def _change(
    state: GatewayState, change: UpsertRequest | DeleteRequest, photo: bytes | None
) -> EmbeddedItem | Delete:
    if isinstance(change, DeleteRequest):
        return Delete(change.item_id)
    return await _embedded(state, change.item_id, change, photo)


async def _embedded(
    state: GatewayState, item_id: str, fields: ItemFields, photo: bytes | None
) -> EmbeddedItem:
    """The item with its vector in the space of the active pair: that of its photo, or the given one."""
    _require_writer(state)
    if (photo is None) == (fields.vector is None):
        raise InputError(f"item '{item_id}': a photo or a vector is required, exactly one of them")

    async def embedded(pair: ServedPair) -> EmbeddedItem:
        index: IndexInfo = await state.index.info_for(pair.generation, item_id, fields.attributes)
        if photo is not None:
            vector, space_id = await state.vectors.of_photo(pair, photo), pair.space_id
        else:
            assert fields.vector is not None
            vector, space_id = given_vector(fields.vector, fields.space_id)
        require_same_space(f"item '{item_id}'", space_id, "the index", index.space_id)
        if len(vector) != index.dimensions:
            raise InputError(f"vector: {index.dimensions} numbers are required, got {len(vector)}")
        return EmbeddedItem(item_id, fields, photo, {space_id: vector})

    return await state.with_active(embedded)


async def _write(state: GatewayState, changes: Sequence[EmbeddedItem | Delete]) -> list[ChangeResponse]:
    """Make the changes durable, with a vector of each photo in every loaded space."""
    writer = _require_writer(state)
    with state.limits.changes.taken():
        changes = await in_all_spaces(changes, state.versions.known, state.vectors.of_photo)
        sequences = await writer.write(changes)
        if any(isinstance(change, EmbeddedItem) and change.photo is not None for change in changes):
            # Another pair may have been loaded meanwhile; its searchers find vectors that come later.
            complete = await in_all_spaces(changes, await state.versions.asked(), state.vectors.of_photo)
            if any(item is not before for item, before in zip(complete, changes, strict=True)):
                await writer.write(complete)
    return [
        ChangeResponse(item_id=change.item_id, change=sequence)
        for change, sequence in zip(changes, sequences, strict=True)
    ]


def _require_writer(state: GatewayState) -> ItemWriter:
    if state.writer is None:
        raise NoStore("changes: the service has no database for them; set store.url, and start it again")
    return state.writer
