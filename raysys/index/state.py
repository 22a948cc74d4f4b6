"""The items of an index at one moment: its FAISS files, and the items that were put later."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from raysys.errors import MissingError
from raysys.index.delta import Delta
from raysys.index.parts import BasePart, Part
from raysys.index.value_types import ValueType, held_together, require_fitting, types_of_column
from raysys.store.changes import Change, LoggedChange, Upsert
from raysys.types import Attributes


@dataclass(frozen=True)
class State:
    """An index after a change; a batch of changes makes the next state, whole or not at all."""

    base: tuple[BasePart, ...]
    delta: Delta
    attributes: Attributes
    """Every attribute of the index, with null."""
    base_types: Mapping[str, Sequence[ValueType]]
    """The types that each attribute has in the FAISS files."""
    last_change: int
    belongs: Callable[[str], bool]
    """Whether an item belongs in these files; changes of other items are ignored."""

    @classmethod
    def of_base(
        cls,
        base: tuple[BasePart, ...],
        space_id: str,
        dimensions: int,
        last_change: int,
        belongs: Callable[[str], bool],
    ) -> State:
        """The state of an index that was just opened."""
        names = frozenset(name for part in base for name in part.items.attributes)
        delta = Delta.empty(space_id, dimensions, sum(len(part.items) for part in base), names)
        types = {name: held_together(_base_types(base, name)) for name in names}
        return cls(base, delta, dict.fromkeys(sorted(names)), types, last_change, belongs)

    @cached_property
    def parts(self) -> tuple[Part, ...]:
        """What a search goes through, in the order of the rows."""
        return (*self.base, self.delta) if self.delta.num_items else self.base

    @cached_property
    def first_rows(self) -> list[int]:
        """The first row of each FAISS file, then that of the delta."""
        return [*itertools.accumulate((len(part.items) for part in self.base), initial=0)]

    @cached_property
    def num_items(self) -> int:
        """The number of items that can be found."""
        return sum(part.num_items for part in self.parts)

    def row_of(self, item_id: str) -> int | None:
        """The row of an item; None if no search finds it."""
        for first, part in zip(self.first_rows, self.parts, strict=False):
            row = part.row_of(item_id)
            if row is not None:
                return first + row
        return None

    def part_of(self, row: int) -> tuple[Part, int]:
        """The part of a row, and the row in it. Raises: MissingError for a row without an item."""
        number = min(bisect.bisect_right(self.first_rows, row), len(self.parts)) - 1
        part, row_of_part = self.parts[number], row - self.first_rows[number]
        if not part.has(row_of_part):
            raise MissingError(
                f"row {row} has no item in this index, or none since a change; look the item up by its id"
            )
        return part, row_of_part

    def require_fitting(self, item_id: str, attributes: Attributes) -> None:
        """Check that an item can be put with these attributes. Raises: as `value_types.require_fitting`."""
        known = {
            name: self.delta.held_types(name, self.base_types.get(name, ()), besides=item_id)
            for name in attributes
        }
        require_fitting(item_id, attributes, known)

    def applied(self, changes: Sequence[LoggedChange]) -> State:
        """The state after these changes; `self` if it has them all. Raises: as `Delta.applied`."""
        new = [logged for logged in changes if logged.sequence > self.last_change]
        if not new:
            return self
        last: dict[str, Change] = {}
        for logged in sorted(new, key=lambda logged: logged.sequence):
            last.pop(logged.change.item_id, None)  # its row comes where its last change does
            if self.belongs(logged.change.item_id):
                last[logged.change.item_id] = logged.change
        return self._after(last, max(logged.sequence for logged in new))

    def with_late_vectors(self, upserts: Sequence[Upsert]) -> State:
        """The state with items that were put up to `last_change` without a vector, and have one now.

        Raises: as `Delta.applied`.
        """
        own = {upsert.item_id: upsert for upsert in upserts if self.belongs(upsert.item_id)}
        return self._after(own, self.last_change)

    def _after(self, last: Mapping[str, Change], last_change: int) -> State:
        """The state after the last change of each of these ids."""
        upserts = [change for change in last.values() if isinstance(change, Upsert)]
        names = self.attributes.keys() | {name for upsert in upserts for name in upsert.attributes}
        return replace(
            self,
            base=tuple(part.without(last) for part in self.base),
            delta=self.delta.applied(last),
            attributes=dict.fromkeys(sorted(names)),
            last_change=last_change,
        )


def _base_types(base: Sequence[BasePart], name: str) -> Iterator[ValueType]:
    """The types of an attribute in each FAISS file, also in hidden rows."""
    for part in base:
        if (column := part.items.attributes.get(name)) is not None:
            yield from types_of_column(column)
