"""Records of a JSON Lines file: an object a line."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator

from raysys.pack.catalog.table import Record, bad_line, require_columns, text_lines

# An object may leave a name out; a name that none of so many has is a wrong name.
_OBJECTS_LOOKED_AT = 1000


def read_json_lines(uri: str, wanted: dict[str, str]) -> Iterator[Record]:
    """A record for every line that is not blank; `place` is the line.

    Raises: InputError if a `wanted` name is in none of the first objects, or for text that is not UTF-8.
    """
    with text_lines(uri) as lines:
        records = (_record(f"{uri}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
        first = list(itertools.islice(records, _OBJECTS_LOOKED_AT))
        objects = [record.values for record in first if record.problem is None]
        if objects:
            require_columns(uri, wanted, list(dict.fromkeys(itertools.chain.from_iterable(objects))))
        yield from first
        yield from records


def _record(place: str, line: str) -> Record:
    try:
        said = json.loads(line.strip())
    except (ValueError, RecursionError) as error:
        return bad_line(place, f"the line is not JSON ({error})")
    if not isinstance(said, dict):
        return bad_line(place, f"the line should be a JSON object, got {type(said).__name__}")
    return Record(place, said)
