"""Rows of a JSON Lines file: one object per line."""

from __future__ import annotations

import collections
import itertools
import json
from collections.abc import Iterator
from typing import Any

from raysys.pack.catalog.raw_rows import RawRow, bad_line, require_columns, text_lines

# A single object may lack a key; a key that none of the first 1,000 objects has is a wrong setting.
_OBJECTS_CHECKED = 1000


def read_json_lines(uri: str, required: dict[str, str]) -> Iterator[RawRow]:
    """Yield a row for every line that is not blank; `source` names the line.

    Raises: InputError if none of the first objects has a `required` key (setting -> key), or for a file that
    is not UTF-8 text.
    """
    with text_lines(uri) as lines:
        rows = (_parse(f"{uri}:{number}", line) for number, line in enumerate(lines, 1) if line.strip())
        first = list(itertools.islice(rows, _OBJECTS_CHECKED))
        objects = [row.values for row in first if row.refusal is None]
        if objects:
            require_columns(uri, required, list(dict.fromkeys(itertools.chain.from_iterable(objects))))
        yield from first
        yield from rows


def _parse(source: str, line: str) -> RawRow:
    try:
        value = json.loads(line.strip(), object_pairs_hook=_as_dict)
    except (ValueError, RecursionError) as error:
        return bad_line(source, f"the line is not JSON ({error})")
    if isinstance(value, _RepeatedKey):
        return bad_line(source, f"the object has a key twice ({value.key:.80}); write each key once")
    if not isinstance(value, dict):
        return bad_line(source, f"the line should be a JSON object, got {type(value).__name__}")
    return RawRow(source, value)


class _RepeatedKey(dict[str, Any]):
    """An object with a key twice: which of its values is meant cannot be known."""

    key = ""


def _as_dict(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) == len(pairs):
        return value
    repeated = _RepeatedKey(value)
    repeated.key, _ = collections.Counter(key for key, _ in pairs).most_common(1)[0]
    return repeated
