"""What every kind of table gives: records with a place, and the same words for what is wrong."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from raysys import storage
from raysys.errors import InputError, did_you_mean

_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True)
class Record:
    """A row of a table as it stands there: column -> value, where, and why it cannot be read, if so."""

    place: str
    values: Mapping[str, Any]
    problem: tuple[str, str] | None = None


def bad_line(place: str, detail: str) -> Record:
    """A row that is none."""
    return Record(place, {}, ("bad_line", detail))


def require_columns(uri: str, wanted: Mapping[str, str], found: list[str]) -> None:
    """Raise InputError for the first of `wanted` (setting -> column) that the table does not have once."""
    for setting, name in wanted.items():
        if found.count(name) > 1:
            raise InputError(f"{uri}: {found.count(name)} columns '{name}'; rename all but one")
        if name not in found:
            hint = did_you_mean(name, found)
            raise InputError(
                f"{uri}: no column '{name}' (found: {', '.join(found) or 'none'}); set {setting}{hint}"
            )


@contextlib.contextmanager
def text_lines(uri: str) -> Iterator[Iterator[str]]:
    """The lines of a UTF-8 file, their ends kept; unpacked if its name ends in .gz.

    Raises: InputError for a line of another encoding, or a damaged .gz.
    """
    with contextlib.ExitStack() as opened:
        stream: Any = opened.enter_context(storage.open_input(uri))
        if uri.lower().endswith(".gz"):
            stream = opened.enter_context(gzip.GzipFile(fileobj=stream))
        yield _decoded(uri, io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER_BYTES))


def _decoded(uri: str, stream: io.BufferedReader) -> Iterator[str]:
    number = 0
    try:
        for number, line in enumerate(stream, start=1):
            yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise InputError(
            f"{uri}:{number}: not UTF-8 text (byte 0x{byte:02x}); save the table as UTF-8"
        ) from error
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{uri}: not a readable .gz ({error}); pack it again") from error
