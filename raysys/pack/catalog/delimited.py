"""Records of a CSV or TSV.

Read by Python's own reader: it knows the physical line of every record, whatever quotes and blank lines
stand before it, and one wrong record does not end the reading, as it does with Arrow's.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

from raysys.pack.catalog.table import Record, bad_line, require_columns, text_lines

_MAX_CELL_CHARACTERS = 1 << 20  # a quote that is never closed would otherwise swallow the file


def read_delimited(
    uri: str, wanted: dict[str, str], optional: tuple[str, ...], *, separator: str
) -> Iterator[Record]:
    """A record for every row under the header, all values text; `place` is the line it begins at.

    Raises: InputError without one of the `wanted` columns, or for text that is not UTF-8.
    """
    csv.field_size_limit(_MAX_CELL_CHARACTERS)
    with text_lines(uri) as lines:
        reader = csv.reader(lines, delimiter=separator, strict=True)
        names = _header(reader)
        require_columns(uri, wanted, names)
        columns = {name: names.index(name) for name in (*wanted.values(), *optional) if name in names}
        while True:
            place = f"{uri}:{reader.line_num + 1}"
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield bad_line(place, f"the row cannot be read ({error})")
                continue
            if cells is None:
                return
            if len(cells) == len(names):
                yield Record(place, {name: cells[number] for name, number in columns.items()})
            elif cells:  # a blank line has none
                yield bad_line(place, f"the row has {len(cells)} cells, the header {len(names)}")


def _header(reader: Iterator[list[str]]) -> list[str]:
    try:
        return next((cells for cells in reader if cells), [])
    except csv.Error:
        return []
