"""Changes of items as a log has them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from raysys.columns import content_hash
from raysys.store.changes import Change, LoggedChange, PhotoFile, Upsert
from raysys.types import Attributes

SPACE = "s" * 64  # of `publish_embeddings`


def upsert(
    item_id: str,
    vector: np.ndarray | None,
    attributes: Attributes | None = None,
    title: str = "title",
    photo: PhotoFile | None = None,
    photo_bytes: bytes = b"",
) -> Upsert:
    """An item with a vector of `SPACE`, or with one of another space only."""
    vectors = {"o" * 64: np.ones(1, np.float32)} if vector is None else {SPACE: vector}
    return Upsert(item_id, title, attributes or {}, content_hash(photo_bytes, title), photo, vectors)


class Log:
    """Numbers changes from 1."""

    def __init__(self) -> None:
        self.changes: list[LoggedChange] = []

    def batch(self, *changes: Change) -> list[LoggedChange]:
        """These changes with the next numbers."""
        numbered = zip(self._numbers(), changes, strict=False)
        batch = [LoggedChange(number, 0.0, change) for number, change in numbered]
        self.changes += batch
        return batch

    def _numbers(self) -> Iterator[int]:
        return itertools.count(len(self.changes) + 1)
