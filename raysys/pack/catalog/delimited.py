"""Rows of a CSV or TSV file.

Python's `csv` reader is used instead of Arrow's: it counts the physical lines of every row, also after quoted
line breaks and blank lines, and a malformed row does not end the reading.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from raysys.pack.catalog.raw_rows import RawRow, bad_line, require_columns, text_lines

_MAX_CELL_CHARACTERS = 1 << 20  # otherwise an unclosed quote reads the rest of the file as one cell


def read_delimited(
    uri: str, required: dict[str, str], optional: tuple[str, ...], *, separator: str
) -> Iterator[RawRow]:
    """Yield every row below the header; all values are text, `source` names the line where the row starts.

    Raises: InputError for a missing `required` column (setting -> column), or for text that is not UTF-8.
    """
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    with text_lines(uri) as lines:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        names = _header(reader)
        require_columns(uri, required, names)
        positions = {name: names.index(name) for name in (*required.values(), *optional) if name in names}
        while True:
            source = f"{uri}:{reader.line_num + 1}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield bad_line(source, f"the row cannot be read ({error})")
                continue
            if cells is None:
                return
            if len(cells) == len(names):
                yield RawRow(source, {name: cells[position] for name, position in positions.items()})
            elif cells:  # a blank line has no cells
                yield bad_line(source, f"the row has {len(cells)} cells, the header {len(names)}")


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        return next((cells for cells in reader if cells), [])
    except csv.Error:
        return []
