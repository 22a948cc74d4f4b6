"""Requests that have arrived together: those to append are one transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from raysys.errors import StoreFailed
from raysys.store.changes import Delete, LoggedChange
from raysys.store.log_server import answers
from raysys.store.messages import after_line, answer_of, append_line, at_line, logged_of
from raysys.store.rows import CheckedChange, checked_change

FOUND = LoggedChange(1, 2.5, Delete("a"))


class Log:
    """A log that remembers its calls."""

    def __init__(self, error: StoreFailed | None = None) -> None:
        self.error = error
        self.calls: list[object] = []

    def append_checked(self, new: Sequence[CheckedChange]) -> list[int]:
        self._call("append", len(new))
        return [*range(1, len(new) + 1)]

    def after(self, sequence: int, space_id: str, limit: int) -> list[LoggedChange]:
        self._call("after", sequence, space_id, limit)
        return [FOUND]

    def at(self, sequences: Sequence[int], space_id: str) -> list[LoggedChange]:
        self._call("at", sequences, space_id)
        return [FOUND]

    def _call(self, *call: object) -> None:
        self.calls.append(call)
        if self.error:
            raise self.error


def append(size: int) -> bytes:
    """A request to append that many changes."""
    return append_line([checked_change(Delete(f"m{number}")) for number in range(size)])


def answered(log: Any, *lines: bytes) -> list[Any]:
    return answers(log, [json.loads(line) for line in lines])


def test_each_request_gets_the_sequences_of_its_changes() -> None:
    log = Log()
    assert [answer_of(line) for line in answered(log, append(2), append(1), append(3))] == [
        [1, 2],
        [3],
        [4, 5, 6],
    ]
    assert log.calls == [("append", 6)]


def test_requests_are_answered_in_their_order() -> None:
    log = Log()
    lines = answered(log, append(1), after_line(0, "s", 9), append(1), append(1), at_line([1], "s"))
    assert log.calls == [("append", 1), ("after", 0, "s", 9), ("append", 2), ("at", [1], "s")]
    assert [answer_of(lines[number]) for number in (0, 2, 3)] == [[1], [1], [2]]
    for line in (lines[1], lines[4]):
        assert logged_of(answer_of(line), "s") == [FOUND]


def test_each_request_gets_the_error() -> None:
    log = Log(StoreFailed("the disk is full"))
    lines = answered(log, append(1), append(2), at_line([1], "s"), after_line(0, "s", 9))
    assert len(lines) == 4
    assert len(log.calls) == 3
    for line in lines:
        with pytest.raises(StoreFailed, match="the disk is full"):
            answer_of(line)
