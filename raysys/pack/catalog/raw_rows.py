"""Shared by the readers of all table formats: untyped rows, the column check, lines of text."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from raysys import storage
from raysys.errors import InputError, did_you_mean

ID_SETTING = "catalog.columns.item_id"
_BUFFER_BYTES = 1 << 20
_SAVE = "save the table as UTF-8"
_NOT_TEXT = (
    (b"\xff\xfe", "UTF-16", _SAVE),
    (b"\xfe\xff", "UTF-16", _SAVE),
    (b"\x1f\x8b", "a gzip file", "add .gz to its name"),
    (b"PAR1", "a Parquet file", "set catalog.format to parquet"),
    (b"PK\x03\x04", "a zip or Excel file", "extract the table, or save it as CSV"),
)


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that Python cannot hold, or that is not exact: no type accepts it."""

    detail: str

    def __repr__(self) -> str:
        return self.detail


class Refusal(NamedTuple):
    """Why a row cannot be used, as the ledger records it."""

    reason: str
    """One word of a fixed set, for counting: `no_title`, `damaged`."""
    detail: str
    """One sentence with the value or file."""


@dataclass(frozen=True)
class RawRow:
    """A row with the values of its file, before types are converted."""

    source: str
    """File and line (or row number), for the ledger."""
    values: Mapping[str, Any]
    """Column -> value; empty for a refused row."""
    refusal: Refusal | None = None


def bad_line(source: str, detail: str) -> RawRow:
    """A row that cannot be parsed."""
    return RawRow(source, {}, Refusal("bad_line", detail))


def require_columns(uri: str, required: Mapping[str, str], existing: list[str]) -> None:
    """Check that the table has each of the `required` columns (setting -> column) exactly once.

    Raises: InputError for the first one that is missing or repeated.
    """
    for setting, name in required.items():
        if existing.count(name) > 1:
            raise InputError(f"{uri}: {existing.count(name)} columns '{name}'; rename all but one")
        if name not in existing:
            hint = did_you_mean(name, existing)
            # An attribute is named by its key, so there is no value to set.
            verb = "rename or remove" if setting.startswith("catalog.columns.attributes.") else "set"
            found = ", ".join(existing) or "none"
            raise InputError(f"{uri}: no column '{name}' (found: {found}); {verb} {setting}{hint}")


def is_unicode(text: str) -> bool:
    """Whether the text can be encoded: a surrogate alone cannot, and stands for a byte that is not UTF-8."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


@contextlib.contextmanager
def text_lines(uri: str) -> Iterator[Iterator[str]]:
    """The lines of a UTF-8 file with their ends (LF, CR LF or CR); decompressed if the name ends in .gz.

    A byte that is not UTF-8 becomes a surrogate (`surrogateescape`), so that only its row is refused.
    Raises: InputError for a file that is UTF-16, compressed or binary, or a damaged .gz.
    """
    with contextlib.ExitStack() as stack:
        stream: Any = stack.enter_context(storage.open_input(uri))
        if uri.lower().endswith(".gz"):
            stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
        yield _decode_lines(uri, io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER_BYTES))


def _decode_lines(uri: str, stream: io.BufferedReader) -> Iterator[str]:
    try:
        start = stream.peek(_BUFFER_BYTES)
        _require_text(uri, start)
        lines: Iterator[bytes] = stream
        if b"\r" in start and b"\n" not in start:
            lines = _lines_with_cr(stream)
        for number, line in enumerate(lines):
            yield line.decode("utf-8" if number else "utf-8-sig", "surrogateescape")
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{uri}: not a readable .gz ({error}); compress the table again") from error


def _require_text(uri: str, start: bytes) -> None:
    for magic, meaning, remedy in _NOT_TEXT:
        if start.startswith(magic):
            raise InputError(f"{uri}: {meaning}, not UTF-8 text; {remedy}")
    if b"\0" in start.partition(b"\n")[0]:
        raise InputError(f"{uri}: zero bytes in the first line (UTF-16 or binary), not UTF-8 text; {_SAVE}")


def _lines_with_cr(stream: io.BufferedReader) -> Iterator[bytes]:
    """The lines of a file whose lines end with CR alone, as old programs on a Mac write them."""
    rest = b""
    while data := stream.read(_BUFFER_BYTES):
        *lines, rest = (rest + data).split(b"\r")
        yield from (line + b"\r" for line in lines)
    if rest:
        yield rest
