"""The split of a listing. Its content decides, not its row number: a growing catalogue moves no listing."""

from __future__ import annotations

import hashlib

from raysys.config.schema import SPLITS, AttributeSplit, ColumnSplit, GroupSplit, TimeSplit, moment_key
from raysys.errors import InputError
from raysys.types import Attributes, AttributeValue


def split_of(
    item_id: str,
    attributes: Attributes,
    split_value: str | None,
    source: str,
    section: ColumnSplit | AttributeSplit | GroupSplit | TimeSplit,
) -> str | None:
    """The split of a row; None where its group decides. `split_value` comes from the split column.

    Raises: InputError for a value other than train, val, test, or an attribute that the catalogue lacks.
    """
    if isinstance(section, GroupSplit):
        return None
    if isinstance(section, ColumnSplit):
        if split_value not in SPLITS:
            names = ", ".join(SPLITS)
            raise InputError(
                f"{source}: column '{section.column}' should be one of {names}, got {split_value!r}"
            )
        return split_value
    if section.attribute not in attributes:
        raise InputError(
            f"pack.split.attribute: '{section.attribute}' is not an attribute of the catalogue "
            f"(attributes: {', '.join(attributes) or 'none'}); add it to catalog.columns.attributes"
        )
    value = attributes[section.attribute]
    if isinstance(section, TimeSplit):
        return _split_by_time(value, source, section)
    return split_of_group(item_id if value is None else str(value), section)


def split_of_group(group: str, section: AttributeSplit | GroupSplit) -> str:
    """The split of all listings of a group, by a hash of the group's name."""
    digest = hashlib.sha256(f"{section.seed} {group}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < section.test_fraction:
        return "test"
    return "val" if share < section.test_fraction + section.val_fraction else "train"


def _split_by_time(value: AttributeValue, source: str, section: TimeSplit) -> str:
    """The newest rows are test, those before them val; older rows and rows without a time are train."""
    if value is None:
        return "train"
    if isinstance(value, str) != isinstance(section.test_from, str):
        raise InputError(
            f"{source}: attribute '{section.attribute}' is {value!r}, which cannot be compared with "
            f"{section.test_from!r}; change pack.split or catalog.columns.attributes.{section.attribute}"
        )
    if moment_key(value) >= moment_key(section.test_from):
        return "test"
    return "val" if moment_key(value) >= moment_key(section.val_from) else "train"
