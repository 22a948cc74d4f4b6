"""Messages between a process of the service and the one that runs its SQL (`log_server.py`): lines of JSON.

A request is `[method, ..]`; an answer is what the method returns, or an error.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from raysys.errors import InputError, RaysysError, StoreFailed
from raysys.store.changes import LoggedChange
from raysys.store.rows import CheckedChange, checked_change, logged_change

APPEND, AFTER, AT = "append", "after", "at"
_ERRORS: dict[str, type[RaysysError]] = {error.__name__: error for error in (InputError, StoreFailed)}


class OpenLog(NamedTuple):
    """The first request: the log to open. A URL in a command line would show its password."""

    url: str
    timeout_s: float


def line_of(message: object) -> bytes:
    """A message as a line."""
    return json.dumps(message).encode() + b"\n"


def append_line(changes: Sequence[CheckedChange]) -> bytes:
    """The request `ChangeLog.append_checked`."""
    return line_of(
        [
            APPEND,
            [
                (row, {space: base64.b64encode(vector).decode() for space, vector in vectors.items()})
                for row, vectors in changes
            ],
        ]
    )


def after_line(sequence: int, space_id: str, limit: int) -> bytes:
    """The request `ChangeLog.after`."""
    return line_of([AFTER, sequence, space_id, limit])


def at_line(sequences: Collection[int], space_id: str) -> bytes:
    """The request `ChangeLog.at`."""
    return line_of([AT, [*sequences], space_id])


def changes_of(message: Sequence[Any]) -> list[CheckedChange]:
    """The changes of a request to append."""
    return [
        CheckedChange(row, {space: base64.b64decode(text) for space, text in texts.items()})
        for row, texts in message
    ]


def error_line(error: RaysysError) -> bytes:
    """An answer that raises this error."""
    return line_of({"error": type(error).__name__, "message": str(error)})


def logged_line(found: Sequence[LoggedChange], space_id: str) -> bytes:
    """An answer with logged changes, each with its vector of this space, if it has one."""
    rows = []
    for logged in found:
        row, vectors = checked_change(logged.change)
        vector = vectors.get(space_id)
        text = None if vector is None else base64.b64encode(vector).decode()
        rows.append({**row, "sequence": logged.sequence, "accepted_at": logged.accepted_at, "vector": text})
    return line_of(rows)


def logged_of(rows: Sequence[dict[str, Any]], space_id: str) -> list[LoggedChange]:
    """The logged changes of an answer."""
    return [
        logged_change({**row, "vector": row["vector"] and base64.b64decode(row["vector"])}, space_id)
        for row in rows
    ]


def answer_of(line: bytes) -> Any:
    """What a method returned. Raises: its error."""
    answer = json.loads(line)
    if isinstance(answer, dict):
        raise _ERRORS[answer["error"]](answer["message"])
    return answer
