"""Rows of a CSV or TSV file.

Python's `csv` reader is used instead of Arrow's: a malformed row does not end the reading, and the physical
lines of every row are known. A record over several lines is legal, unless a lone quote made it swallow rows:
`_is_swallowed` decides, and `_lines_as_rows` then reads each line as a row of its own.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from raysys.errors import InputError
from raysys.pack.catalog.raw_rows import RawRow, bad_line, is_unicode, require_columns, text_lines

_MAX_CELL_CHARACTERS = 1 << 20
_MAX_RECORD_CHARACTERS = 1 << 22  # otherwise an unclosed quote reads the rest of the file into memory
_MAX_RECORD_LINES = 10_000
_SEPARATORS = (",", ";", "\t", "|")
_EXCEL_SEPARATOR = re.compile(r'("?)sep=(?P<separator>[^"\r\n])\1[\r\n]*', re.IGNORECASE)
_QUOTE_REMEDY = 'close the quote, or write "" for a quote inside a quoted cell'


def read_delimited(
    uri: str, required: dict[str, str], optional: tuple[str, ...], *, separator: str | None, usual: str
) -> Iterator[RawRow]:
    """Yield every row below the header; all values are text, `source` names the line where the row starts.

    Without a `separator`, Excel's line `sep=;` above the header decides, then the header; `usual` is the one
    of the format.
    Raises: InputError for a missing `required` column (setting -> column), or for a header that cannot be
    read.
    """
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    with text_lines(uri) as text:
        lines = _Lines(text)
        if stated := _EXCEL_SEPARATOR.fullmatch(lines.peek()):
            lines.skip_peeked()
        separator = separator or (stated and stated["separator"])
        separator = separator or _sniff(lines.peek(), usual, set(required.values()))
        reader = csv.reader(lines, delimiter=separator, strict=True)
        names = _header(uri, lines, reader, separator)
        require_columns(uri, required, names)
        positions = {name: names.index(name) for name in (*required.values(), *optional) if name in names}
        table = _Table(uri, separator, len(names), positions)
        while (record := lines.read_record(reader)).lines:
            if len(record.lines) == 1 or not _is_swallowed(record, table.num_cells, separator):
                yield from table.row(record.number, record.cells, record.error)
            else:
                yield from _lines_as_rows(record, table, lines)


@dataclass(frozen=True)
class _Record:
    """What `csv` reads as one row."""

    number: int  # of its first line
    lines: Sequence[str]
    cells: list[str] = field(default_factory=list)
    error: str = ""
    is_unclosed: bool = False  # the file, or the longest possible record, ends inside a quote


class _Lines:
    """The physical lines that `csv.reader` consumes, grouped by record."""

    def __init__(self, text: Iterator[str]) -> None:
        self._text = text
        self._waiting: list[str] = []  # read but not consumed
        self._num_consumed = self._num_characters = 0
        self._record: list[str] = []
        self._is_ended = False

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        is_full = len(self._record) >= _MAX_RECORD_LINES or self._num_characters >= _MAX_RECORD_CHARACTERS
        line = None if is_full else self._waiting.pop() if self._waiting else next(self._text, None)
        if line is None:
            self._is_ended = True
            raise StopIteration
        self._record.append(line)
        self._num_consumed += 1
        self._num_characters += len(line)
        return line

    def peek(self) -> str:
        """The first line that is not blank, which stays the next but for blank ones; "" at the end."""
        if not self._waiting:
            skipped: list[str] = []
            for line in self._text:
                skipped.append(line)
                if line.strip():
                    break
            self._waiting = skipped[::-1]
        return self._waiting[0] if self._waiting else ""

    def skip_peeked(self) -> None:
        """Consume the line that `peek` returned, with the blank ones before it."""
        self._num_consumed += len(self._waiting)
        self._waiting = []

    def read_record(self, reader: Iterator[list[str]]) -> _Record:
        """The next record; at the end one without lines."""
        self._record, self._num_characters, self._is_ended = [], 0, False
        number = self._num_consumed + 1
        try:
            return _Record(number, self._record, next(reader, []))
        except csv.Error as error:
            return _Record(number, self._record, error=str(error), is_unclosed=self._is_ended)

    def push_back(self, line: str) -> None:
        """Make the last consumed line the next one."""
        self._waiting.append(line)
        self._num_consumed -= 1


@dataclass(frozen=True)
class _Table:
    uri: str
    separator: str
    num_cells: int
    positions: dict[str, int]

    def row(self, number: int, cells: list[str], error: str, note: str = "") -> Iterator[RawRow]:
        """The row of a record; nothing for a blank line, which has no cells."""
        source = f"{self.uri}:{number}"
        if error:
            yield bad_line(source, f"the row cannot be read ({error}){note}")
        elif len(cells) == self.num_cells:
            yield RawRow(source, {name: cells[position] for name, position in self.positions.items()})
        elif cells:
            yield bad_line(source, f"the row has {len(cells)} cells, the header {self.num_cells}{note}")


def _is_swallowed(record: _Record, num_cells: int, separator: str) -> bool:
    """Whether a record over several lines may be rows that a lone quote joined instead.

    It is one row only if it has the header's number of cells and no line of it looks like a row: one between
    the first and the last, or the last if the first may be a complete row, too.
    """
    if record.error or len(record.cells) != num_cells:
        return True
    inner, last = record.lines[1:-1], record.lines[-1]
    if any(_looks_like_row(line, num_cells, separator) for line in inner):
        return True
    return _may_be_complete(record, num_cells, separator) and _looks_like_row(last, num_cells, separator)


def _may_be_complete(record: _Record, num_cells: int, separator: str) -> bool:
    return record.lines[0].count(separator) >= num_cells - 1


def _looks_like_row(line: str, num_cells: int, separator: str) -> bool:
    """Whether the line alone has the header's number of cells. In prose a space follows the comma."""
    cells, error = _cells_of(line, separator, strict=False)
    return not error and len(cells) == num_cells and not any(cell.startswith(" ") for cell in cells[1:])


def _lines_as_rows(record: _Record, table: _Table, lines: _Lines) -> Iterator[RawRow]:
    """Each line of the record as a row of its own. The first is refused: its quote opens the record.

    The last holds the closing quote. It is read again with the lines behind it if the record cannot be read
    and the first line may be a complete row; otherwise it may be the rest of a title, and is refused.
    """
    first, last = record.number, record.number + len(record.lines) - 1
    end = f"is not closed before the end of line {last}" if record.is_unclosed else f"ends in line {last}"
    yield bad_line(
        f"{table.uri}:{first}",
        f"a quote opens in line {first} and {end}, so that each of the {len(record.lines)} lines is read as "
        f"a row of its own; {_QUOTE_REMEDY}",
    )
    note = f"; line {first} opens a quote that {end}"
    own_lines = record.lines[1:] if record.is_unclosed else record.lines[1:-1]
    for number, line in enumerate(own_lines, first + 1):
        yield from table.row(number, *_cells_of(line, table.separator), note)
    if record.is_unclosed:
        return
    if record.error and _may_be_complete(record, table.num_cells, table.separator):
        lines.push_back(record.lines[-1])
    else:
        yield bad_line(
            f"{table.uri}:{last}", f"the quote of line {first} ends here, not in its row; {_QUOTE_REMEDY}"
        )


def _cells_of(line: str, separator: str, *, strict: bool = True) -> tuple[list[str], str]:
    """The cells of one line on its own, or the error."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=strict), []), ""
    except csv.Error as error:
        return [], str(error)


def _sniff(header: str, usual: str, wanted: set[str]) -> str:
    """The separator that gives the most `wanted` names, then the most names, then the usual one."""

    def score(separator: str) -> tuple[int, int, bool]:
        names, _ = _cells_of(header, separator, strict=False)
        return len(wanted.intersection(names)), len(names), separator == usual

    return max(_SEPARATORS, key=score)


def _header(uri: str, lines: _Lines, reader: Iterator[list[str]], separator: str) -> list[str]:
    while (record := lines.read_record(reader)).lines:
        last = record.number + len(record.lines) - 1
        if not is_unicode("".join(record.lines)):
            raise InputError(f"{uri}:{record.number}: the header is not UTF-8 text; save the table as UTF-8")
        if record.error or (last > record.number and _is_swallowed(record, len(record.cells), separator)):
            raise InputError(
                f"{uri}:{record.number}: a quote in the header is not closed before line {last}; "
                f"{_QUOTE_REMEDY}"
            )
        if record.cells:
            return record.cells
    return []
