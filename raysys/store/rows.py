"""Changes as rows of the tables and back, with the check of what a database can hold."""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Float32

from raysys import columns
from raysys.errors import InputError
from raysys.store.changes import Change, Delete, LoggedChange, PhotoFile, Upsert
from raysys.store.tables import COMPARED
from raysys.terminal import printable
from raysys.types import Attributes

Row: TypeAlias = dict[str, Any]

_UNIT_TOLERANCE = 1e-3  # as of the vectors in an EmbeddingSet
_QUOTED_LENGTH = 80


class CheckedChange(NamedTuple):
    """A change that a database can hold; `checked_change` makes one."""

    row: Row
    """That of `raysys_changes`, without sequence, time and the key of the item."""
    vectors: dict[str, bytes]
    """Those of `raysys_vectors`, by space id."""


def checked_change(change: Change) -> CheckedChange:
    """A change as it is stored.

    Raises: InputError for a text with NUL or a lone surrogate, for an attribute that is no scalar or no
    finite number, and as `vector_bytes`.
    """
    where = item_text(change.item_id)
    _check_text(change.item_id, where, "its id")
    if isinstance(change, Delete):
        row = {columns.ITEM_ID: change.item_id, **dict.fromkeys(COMPARED), "is_delete": True}
        return CheckedChange(row, {})
    row = _row_of(change, where)
    vectors = {space: vector_bytes(vector, space, where) for space, vector in change.vectors.items()}
    return CheckedChange(row, vectors)


def item_key(item_id: str) -> bytes:
    """The key of an item in the index of `raysys_changes`."""
    return hashlib.sha256(item_id.encode()).digest()


def _row_of(change: Upsert, where: str) -> Row:
    photo = change.photo
    _check_text(change.title, where, "its title")
    _check_text(change.content_hash, where, "its content hash")
    _check_text(change.group, where, "its group")
    _check_text(photo.uri if photo else "", where, "the URI of its photo")
    return {
        columns.ITEM_ID: change.item_id,
        "is_delete": False,
        columns.TITLE: change.title,
        columns.ATTRIBUTES: _attributes_text(change.attributes, where),
        columns.CONTENT_HASH: change.content_hash,
        columns.GROUP: change.group,
        "photo_uri": photo.uri if photo else None,
        "photo_bytes": photo.num_bytes if photo else None,
    }


def item_text(item_id: str) -> str:
    """How a message names an item."""
    return f"item {printable(repr(item_id), _QUOTED_LENGTH)}"


def vector_bytes(vector: Float32[np.ndarray, " d"], space_id: str, where: str) -> bytes:
    """The vector as it is stored.

    Raises: InputError if it is no vector of length 1 in float32, or the space id is no text.
    """
    _check_text(space_id, where, "a space id")
    if vector.dtype != np.float32 or vector.ndim != 1:
        raise InputError(
            f"{where}: its vector in space {space_id} has shape {vector.shape} and dtype {vector.dtype}; "
            "give one dimension of float32"
        )
    length = float(np.linalg.norm(vector.astype(np.float64)))
    if not abs(length - 1.0) <= _UNIT_TOLERANCE:  # NaN is within no tolerance
        raise InputError(
            f"{where}: its vector in space {space_id} has length {length:.6g} instead of 1; normalise it"
        )
    return vector.astype("<f4", copy=False).tobytes()


def logged_change(row: Row, space_id: str) -> LoggedChange:
    """The change of a row of `raysys_changes` with the column `vector` of this space, null without one."""
    return LoggedChange(row["sequence"], row["accepted_at"], _change(row, space_id))


def _change(row: Row, space_id: str) -> Change:
    if row["is_delete"]:
        return Delete(row[columns.ITEM_ID])
    vector = row["vector"]
    return Upsert(
        item_id=row[columns.ITEM_ID],
        title=row[columns.TITLE],
        attributes=json.loads(row[columns.ATTRIBUTES]),
        content_hash=row[columns.CONTENT_HASH],
        photo=None if row["photo_uri"] is None else PhotoFile(row["photo_uri"], row["photo_bytes"]),
        vectors={} if vector is None else {space_id: np.frombuffer(vector, "<f4")},
        group=row[columns.GROUP],
    )


def _attributes_text(attributes: Attributes, where: str) -> str:
    """Canonical JSON: equal for equal attributes in any order; 1, 1.0 and true differ."""
    for name, value in attributes.items():
        _check_text(name, where, "the name of an attribute")
        what = f"its attribute {printable(repr(name), _QUOTED_LENGTH)}"
        if isinstance(value, str):
            _check_text(value, where, what)
        elif isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"{where}: {what} is {value}; give a finite number or null")
        elif not isinstance(value, int | float | None):
            raise InputError(
                f"{where}: {what} is a {type(value).__name__}; give text, a number, true, false or null"
            )
    return json.dumps(attributes, sort_keys=True, ensure_ascii=False, separators=(",", ":"))


def _check_text(text: str, where: str, what: str) -> None:
    if "\0" in text:
        raise InputError(f"{where}: {what} has a NUL character, which databases cannot store; remove it")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{where}: {what} has a lone surrogate, which is no text; remove it") from error
