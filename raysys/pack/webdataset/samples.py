"""One sample of a tar as a row of a catalogue: its key, its json and its txt, by `catalog.columns`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from raysys.config.schema import Columns, WebDatasetColumns
from raysys.pack.catalog import CatalogRow, Refusal
from raysys.pack.catalog.raw_rows import RawRow
from raysys.pack.catalog.rows import to_row
from raysys.pack.catalog.values import as_text
from raysys.shards.samples import Sample
from raysys.shards.shard_set import TITLE_KEYS
from raysys.shards.tar import Member

MAX_TEXT_BYTES = 1 << 20
_KEY, _TITLE, _NO_PHOTO = "\0key", "\0title", "\0photo"  # no field of a json has such a name
ReadText = Callable[[Member], bytes]


def to_catalog_row(
    sample: Sample, source: str, read: ReadText, columns: WebDatasetColumns, split_column: str | None
) -> tuple[CatalogRow, str | None]:
    """The row of a sample, with the first error as its refusal, and its value of `catalog.columns.group`.

    The row has no photo: photos are not read.
    """
    fields, refusal = _json_fields(sample, read)
    title_field = columns.title or next((name for name in TITLE_KEYS if fields.get(name)), None)
    values = {**fields, _KEY: sample.key}
    if title_field is None:
        values[_TITLE], unreadable = _txt(sample, read)
        refusal = refusal or unreadable
    if sample.photo() is None:
        refusal = refusal or Refusal("no_photo", f"members: {', '.join(sample.members)}")
    names = Columns(
        item_id=columns.item_id or _KEY,
        title=title_field or _TITLE,
        image=_NO_PHOTO,
        attributes=columns.attributes,
    )
    row = to_row(RawRow(source, values, refusal), names, "", split_column, None)
    return row, _group(fields, columns.group)


def _json_fields(sample: Sample, read: ReadText) -> tuple[Mapping[str, Any], Refusal | None]:
    member = sample.members.get("json")
    if member is None:
        return {}, None
    try:
        fields = json.loads(_content(member, read))
    except (ValueError, RecursionError) as error:
        return {}, Refusal("bad_json", f"{member.name}: {error}")
    if not isinstance(fields, dict):
        return {}, Refusal("bad_json", f"{member.name}: expected an object, got {type(fields).__name__}")
    return fields, None


def _txt(sample: Sample, read: ReadText) -> tuple[str, Refusal | None]:
    member = sample.members.get("txt")
    if member is None:
        return "", None
    try:
        return _content(member, read).decode("utf-8-sig"), None
    except ValueError as error:
        return "", Refusal("bad_text", f"{member.name}: {error}")


def _content(member: Member, read: ReadText) -> bytes:
    if member.num_bytes > MAX_TEXT_BYTES:
        raise ValueError(f"{member.num_bytes} bytes are too many for a text")
    return read(member)


def _group(fields: Mapping[str, Any], name: str | None) -> str | None:
    """The value that listings of one group share; None without one."""
    try:
        return (name and as_text(fields.get(name))) or None
    except ValueError:
        return None
