"""A shelf: the neighbours of a query that are worth showing, without copies of its item and with variety."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from jaxtyping import Float32
from numpy import ndarray

from raysys.errors import InputError
from raysys.index.filters import Filter, check_filter, require_attribute
from raysys.index.search import Neighbour, Searcher

_SPARE = 8  # neighbours that are asked for beyond `k`: copies of the query's item are few
_SPARE_FACTOR = 2  # the same as a multiple of `k`, where values are limited


def shelf(
    searcher: Searcher,
    vector: Float32[ndarray, " d"],
    k: int,
    *,
    where: Filter | None = None,
    query_row: int | None = None,
    include_group: bool = False,
    max_per: Mapping[str, int] | None = None,
) -> list[Neighbour]:
    """The `k` nearest items to show for a query, best first; fewer only where fewer may be shown.

    `query_row` is the item of the query: neither it nor, without `include_group`, an item of its group is
    shown. `max_per` limits how many items may share a value of an attribute: with `{"seller": 2}`, the two
    nearest items of each seller are shown; items without the attribute are not limited.
    Raises: as `Searcher.search`; InputError for a `max_per` with an unknown attribute or a number below 1.
    """
    limits = _checked_limits(max_per, searcher)
    group = "" if query_row is None or include_group else searcher.item(query_row).group
    excluded = None if query_row is None else [query_row]
    asked = k if not group and not limits else max(k + _SPARE, _SPARE_FACTOR * k if limits else 0)
    shown: dict[str, Neighbour] = {}
    counts: dict[str, Counter[Any]] = {name: Counter() for name in limits}
    while True:
        (found,) = searcher.search(vector[None], asked, where=where, exclude_rows=excluded)
        is_full = False
        for neighbour in found:
            item = neighbour.item
            if item.item_id in shown or (group and item.group == group):
                continue
            values = {name: item.attributes[name] for name in limits if item.attributes[name] is not None}
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


def _checked_limits(max_per: Mapping[str, int] | None, searcher: Searcher) -> Mapping[str, int]:
    if not isinstance(max_per, Mapping | None):
        raise InputError(f'max_per: an object like {{"seller": 2}} is required, got {max_per!r}')
    for name, limit in (max_per or {}).items():
        require_attribute("max_per", name, searcher.attribute_names)
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
