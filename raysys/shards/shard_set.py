"""Files beside the tars of a ShardSet, and checks that every writer and reader of one shares."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from raysys.artifacts import ShardSetManifest, open_artifact
from raysys.columns import TITLE
from raysys.errors import InputError

LEDGER = "ledger.parquet"  # refused items and the reasons
ITEMS = "items.parquet"  # every item: its shard, its group, and a hash of its photo, title and attributes
HASHED_BYTES = 512 + 1024  # of a photo in a tar of another tool: its header and its first KiB
TITLE_KEYS = (TITLE, "caption", "text")  # JSON keys of a title: of raysys, of img2dataset, of other tools


def require_attributes(uri: str, names: Iterable[str], setting: str) -> None:
    """Check that the ShardSet's schema has every attribute that a setting names.

    Raises: InputError for the first attribute that no item has.
    """
    schema = open_artifact(uri, ShardSetManifest).item_schema
    for name in names:
        if name not in schema:
            raise InputError(
                f"{uri}: no item has the attribute '{name}' from {setting} (found: "
                f"{', '.join(schema) or 'none'}); pack again with this attribute, or remove it from {setting}"
            )


def header_hash(data: bytes) -> bytes:
    """128 bits of a SHA-256 over the first 1,536 bytes: a header, with name, size and time, and the photo's
    first KiB."""
    return hashlib.sha256(data[:HASHED_BYTES]).digest()[:16]
