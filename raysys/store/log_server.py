"""A program that runs the SQL of a log for another process: `python -m raysys.store.log_server`.

Its stdin is a socket. It opens the log of the first line, then answers each line (`messages.py`). All changes
that have arrived while a transaction ran are stored in the next one. It ends with the other process.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from raysys.errors import RaysysError
from raysys.store.change_log import ChangeLog
from raysys.store.messages import (
    AFTER,
    APPEND,
    AT,
    OpenLog,
    changes_of,
    error_line,
    line_of,
    logged_line,
)

_RECEIVED_BYTES = 1 << 20


def main(connection: socket.socket) -> None:
    """Answer until the connection ends."""
    received = requests(connection)
    [first] = next(received)
    try:
        log = ChangeLog(*OpenLog(*first))
    except RaysysError as error:
        connection.sendall(error_line(error))
        return
    connection.sendall(line_of([]))
    for some in received:
        connection.sendall(b"".join(answers(log, some)))


def requests(connection: socket.socket) -> Iterator[list[Any]]:
    """The requests that have arrived, at least one at a time, until the connection ends."""
    rest = b""
    while data := connection.recv(_RECEIVED_BYTES):
        *lines, rest = (rest + data).split(b"\n")
        if lines:
            yield [json.loads(line) for line in lines]


def answers(log: ChangeLog, some: Sequence[Any]) -> list[bytes]:
    """The answers to requests, in their order; requests to append in a row are one transaction."""
    lines = []
    for method, same in itertools.groupby(some, lambda request: request[0]):
        if method == APPEND:
            lines += _appended(log, [changes_of(changes) for _, changes in same])
        else:
            lines += [_read(log, request) for request in same]
    return lines


def _appended(log: ChangeLog, changes: Sequence[Any]) -> list[bytes]:
    try:
        sequences = iter(log.append_checked([*itertools.chain.from_iterable(changes)]))
    except RaysysError as error:
        return [error_line(error)] * len(changes)
    return [line_of([*itertools.islice(sequences, len(each))]) for each in changes]


def _read(log: ChangeLog, request: Sequence[Any]) -> bytes:
    try:
        match request:
            case [method, sequence, space_id, limit] if method == AFTER:
                return logged_line(log.after(sequence, space_id, limit), space_id)
            case [method, sequences, space_id] if method == AT:
                return logged_line(log.at(sequences, space_id), space_id)
    except RaysysError as error:
        return error_line(error)
    raise AssertionError(request)


if __name__ == "__main__":
    with contextlib.suppress(ConnectionError), socket.socket(fileno=sys.stdin.fileno()) as stdin:
        main(stdin)
