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

_BUFFER_BYTES = 1 << 20


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
            raise InputError(
                f"{uri}: no column '{name}' (found: {', '.join(existing) or 'none'}); {verb} {setting}{hint}"
            )


@contextlib.contextmanager
def text_lines(uri: str) -> Iterator[Iterator[str]]:
    """The lines of a UTF-8 file with their line ends; decompressed if the name ends in .gz.

    Raises: InputError for a line that is not UTF-8, or a damaged .gz.
    """
    with contextlib.ExitStack() as stack:
        stream: Any = stack.enter_context(storage.open_input(uri))
        if uri.lower().endswith(".gz"):
            stream = stack.enter_context(gzip.GzipFile(fileobj=stream))
        yield _decode_lines(uri, io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER_BYTES))


def _decode_lines(uri: str, stream: io.BufferedReader) -> Iterator[str]:
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
        raise InputError(f"{uri}: not a readable .gz ({error}); compress the table again") from error
