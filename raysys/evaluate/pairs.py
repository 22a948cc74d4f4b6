"""Photo-title pairs on which models are measured: where they come from, and how a part of them is read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from raysys.config.schema import RobustConfig
from raysys.shards.reader import ShardRef, read_samples, require_items, shards_of
from raysys.synth import generate_items, render_item

_DRAWN_SEED = 20_210  # different from any catalogue's, so that no drawn pair was trained on


class PairSource(Protocol):
    """Where pairs come from; it can be sent to workers."""

    @property
    def num_pairs(self) -> int: ...

    def read(self, start: int, stop: int) -> Iterator[tuple[bytes, str]]:
        """Encoded photo and title of the pairs from `start` to `stop`, of which there may be fewer."""


@dataclass(frozen=True)
class PackedPairs:
    """Pairs of a ShardSet."""

    shards: list[ShardRef]
    positions: Sequence[int]
    """Numbers of the items, counted over all shards, in ascending order."""

    @property
    def num_pairs(self) -> int:
        """Number of pairs."""
        return len(self.positions)

    def read(self, start: int, stop: int) -> Iterator[tuple[bytes, str]]:
        """See `PairSource`; opens only the shards with these pairs. Raises: as `read_samples`."""
        positions, first = self.positions[start:stop], 0
        for shard in self.shards:
            numbers = [position - first for position in positions if 0 <= position - first < shard.num_items]
            for item in read_samples(shard, numbers) if numbers else ():
                yield item.image, item.title
            first += shard.num_items


@dataclass(frozen=True)
class DrawnPairs:
    """Pairs of a drawn catalogue; the same ones in every process."""

    num_pairs: int

    def read(self, start: int, stop: int) -> Iterator[tuple[bytes, str]]:
        """See `PairSource`; draws only these photos."""
        for item in generate_items(self.num_pairs, _DRAWN_SEED)[start:stop]:
            yield render_item(item), item.title


def retention_pairs(section: RobustConfig) -> PairSource:
    """The pairs of the retention check of `train.method: wise_ft`.

    Raises: MissingError if its ShardSet does not exist, InputError if it is empty.
    """
    if section.retention_set == "drawn":
        return DrawnPairs(section.retention_items)
    require_items([section.retention_set])
    shards = shards_of(section.retention_set)
    num_items = sum(shard.num_items for shard in shards)
    return PackedPairs(shards, range(min(num_items, section.retention_items)))
