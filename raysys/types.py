"""Types of the public API that are cheap to import: neither pyarrow nor FAISS is needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from jaxtyping import Float32
from numpy import ndarray

AttributeValue: TypeAlias = str | int | float | bool | None
Attributes: TypeAlias = dict[str, AttributeValue]


@dataclass(frozen=True)
class Embeddings:
    """L2-normalised vectors of one embedding space, one row each."""

    array: Float32[ndarray, "n d"]
    space_id: str
    item_ids: tuple[str, ...] | None = None
    """The item of each row; None for vectors of photos and texts."""

    def __len__(self) -> int:
        return len(self.array)
