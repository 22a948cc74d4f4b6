"""Changes of items: what a service accepts, and in which order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from jaxtyping import Float32
from numpy import ndarray

from raysys.columns import Attributes


@dataclass(frozen=True)
class PhotoFile:
    """An encoded photo, which is a whole file."""

    uri: str
    num_bytes: int


@dataclass(frozen=True)
class Upsert:
    """A new item, or the new state of one."""

    item_id: str
    title: str
    attributes: Attributes
    content_hash: str
    photo: PhotoFile | None
    vectors: Mapping[str, Float32[ndarray, " d"]]
    group: str = ""


@dataclass(frozen=True)
class Delete:
    """An item that is no longer for sale."""

    item_id: str


Change = Upsert | Delete


@dataclass(frozen=True)
class LoggedChange:
    """A change with its place in the order of all changes."""

    sequence: int
    accepted_at: float
    change: Change
