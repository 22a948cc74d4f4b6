"""Which split a listing belongs to: never by row, and never another one because the catalogue grew."""

from __future__ import annotations

import hashlib

from raysys.columns import Attributes, AttributeValue
from raysys.config.schema import SPLITS, AttributeSplit, ColumnSplit, GroupSplit, TimeSplit, moment_key
from raysys.errors import InputError


def split_of(
    item_id: str,
    attributes: Attributes,
    said: str | None,
    source: str,
    how: ColumnSplit | AttributeSplit | GroupSplit | TimeSplit,
) -> str | None:
    """The split of a row by what stands in it; None where only its group can tell.

    Raises: InputError for a split that is none of train, val, test, or an attribute that is not there.
    """
    if isinstance(how, GroupSplit):
        return None
    if isinstance(how, ColumnSplit):
        if said not in SPLITS:
            wanted = ", ".join(SPLITS)
            raise InputError(f"{source}: column '{how.column}' should be one of {wanted}, got {said!r}")
        return said
    if how.attribute not in attributes:
        raise InputError(
            f"pack.split.attribute: '{how.attribute}' is no attribute of the catalogue "
            f"(attributes: {', '.join(attributes) or 'none'}); add it to catalog.columns.attributes"
        )
    value = attributes[how.attribute]
    if isinstance(how, TimeSplit):
        return _by_time(value, source, how)
    return split_of_group(item_id if value is None else str(value), how)


def split_of_group(group: str, how: AttributeSplit | GroupSplit) -> str:
    """The split of a whole group, by a hash of what names it."""
    digest = hashlib.sha256(f"{how.seed} {group}".encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    if share < how.test_fraction:
        return "test"
    return "val" if share < how.test_fraction + how.val_fraction else "train"


def _by_time(value: AttributeValue, source: str, how: TimeSplit) -> str:
    """The newest test, those before them validate; a row without a time trains."""
    if value is None:
        return "train"
    if isinstance(value, str) != isinstance(how.test_from, str):
        raise InputError(
            f"{source}: attribute '{how.attribute}' is {value!r}, which cannot be compared with "
            f"{how.test_from!r}; change pack.split or catalog.columns.attributes.{how.attribute}"
        )
    if moment_key(value) >= moment_key(how.test_from):
        return "test"
    return "val" if moment_key(value) >= moment_key(how.val_from) else "train"
