"""The calls that change the index: upserts and deletes, one or many, durable when the service has answered.

The docstrings are those of the methods of `Client` and `AsyncClient`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from raysys.client.call import Call, post
from raysys.client.photos import Photo, as_base64
from raysys.client.responses import Response
from raysys.types import Attributes


@dataclass(frozen=True)
class Upsert:
    """Add an item, or replace the item with this id."""

    item_id: str
    image: Photo
    title: str
    attributes: Attributes
    group: str = ""
    """Equal for listings of the same thing, "" for a group of its own."""


@dataclass(frozen=True)
class Delete:
    """Remove an item; nothing happens if there is none."""

    item_id: str


class _AppliedChange(BaseModel):
    item_id: str
    change: int


class _ChangesResponse(BaseModel):
    changes: list[_AppliedChange]


def upsert(item_id: str, *, image: Photo, title: str, attributes: Attributes, group: str = "") -> Call[int]:
    """Add an item or replace it, and return the number of the change, which is durable then.

    Raises: InputError for an invalid field, UnreadableImage, Unauthorized, Forbidden.
    """
    return _one_change(Upsert(item_id, image, title, attributes, group))


def delete(item_id: str) -> Call[int]:
    """Remove an item, and return the number of the change, which is durable then.

    Raises: Unauthorized, Forbidden.
    """
    return _one_change(Delete(item_id))


def apply(changes: Sequence[Upsert | Delete]) -> Call[list[int]]:
    """Apply 1 to 64 changes, all or none, and return their numbers, in order. They are durable then.

    Raises: as `upsert`.
    """
    expected = [change.item_id for change in changes]

    def parse(response: Response) -> list[int]:
        applied = _ChangesResponse.model_validate_json(response.body).changes
        if [change.item_id for change in applied] != expected:
            raise ValueError("changes: not those of the request")
        return [change.change for change in applied]

    return post("/v1/changes", {"changes": [_change_fields(change) for change in changes]}, parse)


def _one_change(change: Upsert | Delete) -> Call[int]:
    # Not PUT and DELETE: clients remove the segments `.` and `..` from a path, and both are valid ids.
    call = apply([change])
    return Call(call.method, call.path, lambda response: call.parse(response)[0], call.body)


def _change_fields(change: Upsert | Delete) -> dict[str, Any]:
    if isinstance(change, Delete):
        return {"kind": "delete", "item_id": change.item_id}
    return {
        "kind": "upsert",
        "item_id": change.item_id,
        "image_base64": as_base64(change.image),
        "title": change.title,
        "attributes": change.attributes,
        "group": change.group,
    }
