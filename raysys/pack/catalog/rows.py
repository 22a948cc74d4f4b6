"""From a record of any table to a row of the catalogue: columns mapped, values typed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from raysys import storage
from raysys.columns import Attributes, AttributeValue
from raysys.config.schema import AttributeType, Columns
from raysys.pack.catalog.table import Record
from raysys.pack.catalog.values import as_text, as_type


@dataclass(frozen=True)
class CatalogRow:
    """A row of a catalogue, before anything about it was judged."""

    item_id: str
    title: str
    image: str | bytes  # an absolute path or URI, "" for none; or the photo itself
    attributes: Attributes
    split: str | None
    source: str  # where it stands, for the ledger
    problem: tuple[str, str] | None = None  # reason and detail, if it cannot be used as it is


def wanted_columns(columns: Columns, split_column: str | None) -> dict[str, str]:
    """Setting -> column, for every column that is read."""
    wanted = {f"catalog.columns.{field}": getattr(columns, field) for field in ("item_id", "title", "image")}
    wanted |= {f"catalog.columns.attributes.{name}": name for name in columns.attributes}
    return wanted | ({"pack.split.column": split_column} if split_column else {})


def to_row(
    record: Record, columns: Columns, images: str, split_column: str | None, folder_split: str | None
) -> CatalogRow:
    """The row of a record; the first thing wrong with it is its problem. `images` is absolute."""
    typed = _Typed(record.values, record.problem)
    split = typed.text(split_column, "split") if split_column else None
    return CatalogRow(
        item_id=typed.text(columns.item_id, "item id").strip(),
        title=typed.text(columns.title, "title"),
        image=typed.image(columns.image, images),
        attributes={name: typed.attribute(name, kind) for name, kind in columns.attributes.items()},
        split=split or (folder_split if split_column else None),
        source=record.place,
        problem=typed.problem,
    )


class _Typed:
    """The values of a record by column, and the first problem met in reading them."""

    def __init__(self, values: Mapping[str, Any], problem: tuple[str, str] | None) -> None:
        self._values = values
        self.problem = problem

    def text(self, column: str, what: str) -> str:
        try:
            return as_text(self._values.get(column))
        except ValueError as error:
            self._note(f"bad_{what.replace(' ', '_')}", f"{what} in column '{column}' {error}")
            return ""

    def attribute(self, column: str, kind: AttributeType) -> AttributeValue:
        value = self._values.get(column)
        try:
            return as_type(value, kind)
        except ValueError as error:
            self._note("bad_attribute", f"attribute '{column}' {error}")
            return None

    def image(self, column: str, images: str) -> str | bytes:
        value = self._values.get(column)
        if isinstance(value, dict):  # as Hugging Face datasets write a photo
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes):
            return value
        if value is None or isinstance(value, str):
            return _absolute(value or "", images)
        self._note(
            "bad_image", f"image in column '{column}' should be a path, a URI or bytes, got {value!r:.80}"
        )
        return ""

    def _note(self, reason: str, detail: str) -> None:
        self.problem = self.problem or (reason, detail)


def _absolute(image: str, images: str) -> str:
    if not image or "://" in image:
        return image
    return image if image.startswith("/") else storage.join(images, image)
