"""A shelf: the neighbours of a query that are worth showing, without copies of its item and with variety."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Generator, Mapping
from typing import Any, NamedTuple, TypeAlias

from jaxtyping import Float32
from numpy import ndarray

from raysys.errors import InputError
from raysys.index.filters import Filter, check_filter, require_attribute
from raysys.index.items import IndexedItem
from raysys.index.search import Neighbour, Searcher

_SPARE = 8  # neighbours that are asked for beyond `k`: copies of the query's item are few
_SPARE_FACTOR = 2  # the same as a multiple of `k`, where values are limited


class ShelfOptions(NamedTuple):
    """What may be on a shelf."""

    where: Any = None
    """A filter; None for all items."""
    max_per: Any = None
    """How many items may share a value of an attribute: with `{"seller": 2}`, the two nearest items of each
    seller are shown; items without the attribute are not limited."""
    include_group: bool = False
    """Whether items of the group of the query's item are shown."""

    @property
    def is_plain(self) -> bool:
        """Whether no search has a filter."""
        return self.where is None and not self.max_per


NO_OPTIONS = ShelfOptions()


class Wanted(NamedTuple):
    """The next search for a shelf: the `k` nearest items that pass the filter."""

    k: int
    where: Filter | None


Steps: TypeAlias = Generator[Wanted, list[Neighbour], list[Neighbour]]


def shelf(
    searcher: Searcher,
    vector: Float32[ndarray, " d"],
    k: int,
    options: ShelfOptions = NO_OPTIONS,
    *,
    query_row: int | None = None,
) -> list[Neighbour]:
    """The `k` nearest items to show for a query, best first; fewer only where fewer may be shown.

    `query_row` is the item of the query: neither it nor, unless the options say so, an item of its group is
    shown.
    Raises: as `Searcher.search`; InputError for a `max_per` with an unknown attribute or a number below 1.
    """
    own = None if query_row is None else searcher.item(query_row)
    steps = shelf_steps(k, options, own)
    wanted = next(steps)
    require_known_limits(options, searcher.attribute_names)
    while True:
        (found,) = searcher.search(vector[None], wanted.k, where=wanted.where)
        try:
            wanted = steps.send(found)
        except StopIteration as end:
            return list(end.value)


def shelf_steps(k: int, options: ShelfOptions, own: IndexedItem | None) -> Steps:
    """The searches of `shelf`, each of which is sent what it found; returns the shelf.

    `own` is the item of the query.
    Raises: InputError for a `max_per` that is no mapping of names to numbers of at least 1.
    """
    limits, where = _checked_limits(options.max_per), options.where
    group = "" if own is None or options.include_group else own.group
    asked = k + (own is not None)
    if group or limits:
        asked = max(k + _SPARE, _SPARE_FACTOR * k if limits else 0)
    shown: dict[str, Neighbour] = {}
    counts: dict[str, Counter[Any]] = {name: Counter() for name in limits}
    while True:
        found = yield Wanted(asked, where)
        is_full = False
        for neighbour in found:
            item = neighbour.item
            if item.item_id in shown or (group and item.group == group):
                continue
            if own is not None and item.item_id == own.item_id:
                continue
            values = {name: item.attributes.get(name) for name in limits}
            values = {name: value for name, value in values.items() if value is not None}
            if any(counts[name][value] >= limits[name] for name, value in values.items()):
                is_full = True
                continue
            shown[item.item_id] = neighbour
            for name, value in values.items():
                counts[name][value] += 1
            if len(shown) == k:
                return [*shown.values()]
        if len(found) < asked:
            return [*shown.values()]
        # Items of a value that has its number are filtered out, however many there are.
        where = _without_full(where, counts, limits) if is_full else where
        asked = asked if is_full else 2 * asked


def require_known_limits(options: ShelfOptions, names: Collection[str]) -> None:
    """Raises: InputError for a `max_per` with an unknown attribute."""
    for name in options.max_per or {}:
        require_attribute("max_per", name, names)


def _checked_limits(max_per: Any) -> Mapping[str, int]:
    if not isinstance(max_per, Mapping | None):
        raise InputError(f'max_per: an object like {{"seller": 2}} is required, got {max_per!r}')
    for name, limit in (max_per or {}).items():
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise InputError(f"max_per: '{name}' needs a whole number of at least 1, got {limit!r}")
    return max_per or {}


def _without_full(
    where: Filter | None, counts: Mapping[str, Counter[Any]], limits: Mapping[str, int]
) -> Filter:
    """The filter, without the items whose value of a limited attribute is shown as often as it may be."""
    narrowed = {name: dict(conditions) for name, conditions in check_filter(dict(where or {})).items()}
    for name, limit in limits.items():
        full = [value for value, count in counts[name].items() if count >= limit]
        if full:
            conditions = narrowed.setdefault(name, {})
            conditions["not"] = [*conditions.get("not", []), *full]
    return narrowed
