"""A change of the catalogue: an item is added or replaced (`Upsert`), or removed (`Delete`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

from raysys.types import Attributes


@dataclass(frozen=True)
class PhotoFile:
    """An encoded photo, which is a whole file."""

    uri: str
    num_bytes: int


@dataclass(frozen=True)
class Upsert:
    """An item that is new, or replaces the item of this id.

    `content_hash` is that of `raysys.columns`. `vectors` holds a vector of length 1 by space id; it is empty
    while the item has not been embedded. Vectors are not part of a comparison: they follow from the content.
    """

    item_id: str
    title: str
    attributes: Attributes
    content_hash: str
    photo: PhotoFile | None
    vectors: Mapping[str, Float32[np.ndarray, " d"]] = field(compare=False)
    group: str = ""


@dataclass(frozen=True)
class Delete:
    """An item that exists no more."""

    item_id: str


Change: TypeAlias = Upsert | Delete


@dataclass(frozen=True)
class LoggedChange:
    """A change in the log. `sequence` is its place, from 1; `accepted_at` is in Unix seconds."""

    sequence: int
    accepted_at: float
    change: Change
