"""Simulated interaction logs: shelves and taps generated from item attributes, with position bias.

They replace a recorded log where there is none. Their rows are marked `simulated`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from numpy.random import Generator

from raysys.columns import IMPRESSION_ID, ITEM_ID, LOG_SCHEMA, POSITION, QUERY_ID, SIMULATED, TAPPED
from raysys.config.schema import SimulatedLog
from raysys.errors import InputError, did_you_mean
from raysys.evaluate.attribute_precision import value_codes
from raysys.evaluate.items import EvaluationItems, known_attributes

RELEVANT_FROM = 0.65  # an item of this relevance, or of a higher one, is relevant
# The shelf of a mediocre recommender, from items of high relevance to irrelevant ones:
# (minimum relevance, upper bound of relevance, cumulative share of the shelf).
_SHELF_MIX = (
    (RELEVANT_FROM, np.inf, 0.4),
    (0.35, RELEVANT_FROM, 0.5),
    (0.05, 0.35, 0.7),
    (0.0, 0.05, 1.0),
    (0.0, np.inf, 1.0),  # fills up the shelf when the bands above have too few items
)
_ORDER_NOISE = 1.2  # standard deviation, added to a relevance from 0 to 1 before the shelf is sorted
_TAP_FLOOR, _TAP_CEILING = 0.03, 0.95  # tap rates of an irrelevant and of a perfect item that was examined
_TAP_MIDPOINT, _TAP_WIDTH = 0.6, 0.06  # of the logistic function of relevance between the two
_MAX_SIMULATED_ITEMS = 20_000  # a larger catalogue is sampled: scoring all items costs 1 ms an impression


def simulate_log_for_items(items: EvaluationItems, latent_uri: str | None, section: SimulatedLog) -> pa.Table:
    """`simulate_log` from the public attributes of `items` and, if there are any, the latent ones.

    `latent_uri` is the Parquet file of the drawn catalogue's latent attributes.
    Raises: InputError as `simulate_log` does.
    """
    attributes, groups = attributes_and_groups(items, latent_uri)
    return simulate_log(items.item_ids, attributes, section, groups)


def attributes_and_groups(
    items: EvaluationItems, latent_uri: str | None
) -> tuple[dict[str, list[str]], Sequence[str]]:
    """The public attributes of `items` with the latent ones, if there are any; and the items' groups."""
    known = known_attributes(items, latent_uri)
    groups = items.groups
    if latent_uri:
        originals = known["relisted_from"]
        groups = [
            str(original or item_id) for original, item_id in zip(originals, items.item_ids, strict=True)
        ]
    return {name: list(values) for name, values in known.items()}, groups


def simulate_log(
    item_ids: Sequence[str],
    attributes: Mapping[str, Sequence[str]],
    section: SimulatedLog,
    groups: Sequence[str] | None = None,
) -> pa.Table:
    """Exactly `section.queries` impressions with a tap, as a mediocre recommender would have collected them.

    A shelf mixes items that share several, one or none of the query's attributes; relevance and noise
    decide their order. The probability of a tap is that of examining the position (position bias) times
    a tap rate that rises with relevance, the summed weight of equal attributes. Items of the query's own
    group (listings of the same thing) are not shown. Queries repeat, with other shelves, if there are fewer
    items than queries. A very large catalogue is sampled.
    Raises: InputError if a weight names an unknown attribute, or if no query has two items to show.
    """
    rng = np.random.default_rng(section.seed)
    num_items = min(len(item_ids), _MAX_SIMULATED_ITEMS)
    sample = np.sort(rng.choice(len(item_ids), num_items, replace=False))
    relevance_model = RelevanceModel.from_attributes(attributes, section.weights, sample)
    group_codes = _group_codes(groups, len(item_ids))[sample]
    impressions: list[tuple[int, ndarray, ndarray]] = []
    for query in _repeated_queries(rng, group_codes):
        relevance = relevance_model.relevance_to(query)
        shelf = _sample_shelf(rng, relevance, group_codes != group_codes[query], section.shelf_size)
        tapped = _sample_taps(rng, relevance[shelf], section.position_bias)
        if tapped.any():
            impressions.append((query, shelf, tapped))
        if len(impressions) == section.queries:
            return _log_table([item_ids[item] for item in sample], impressions)
    raise InputError(
        f"evaluate.log: {len(item_ids)} items, but no query has two items of other groups to show; "
        "add items, or widen evaluate.splits"
    )


@dataclass(frozen=True)
class RelevanceModel:
    """Relevance of every item to a query item, from the attributes that have a weight."""

    codes: list[Int64[ndarray, " items"]]
    weights: list[float]
    """One for each of `codes`; their sum is 1."""

    @classmethod
    def from_attributes(
        cls, attributes: Mapping[str, Sequence[str]], weights: Mapping[str, float], items: ndarray
    ) -> RelevanceModel:
        """The relevance of `items`, rows of the attributes. Raises: InputError for an unknown attribute."""
        for name in weights:
            if name not in attributes:
                found = ", ".join(sorted(attributes)) or "none"
                raise InputError(
                    f"evaluate.log.weights: unknown attribute '{name}' (the items have: {found})"
                    + (did_you_mean(name, attributes) or "; name one of them")
                )
        total = sum(weights.values())
        if not weights:
            raise InputError("evaluate.log.weights: empty; give at least one attribute a weight")
        codes = [value_codes(attributes[name])[items] for name in weights]
        return cls(codes, [weight / total for weight in weights.values()])

    def relevance_to(self, query: int) -> Float[ndarray, " items"]:
        """The summed weight of equal attributes, from 0 to 1."""
        equal = [(codes == codes[query]) & (codes[query] >= 0) for codes in self.codes]
        relevance = sum(weight * is_equal for weight, is_equal in zip(self.weights, equal, strict=True))
        return np.asarray(relevance, dtype=np.float64)


def _group_codes(groups: Sequence[str] | None, num_items: int) -> Int64[ndarray, " items"]:
    """A code for each group; an item without a group is a group of its own."""
    codes = np.full(num_items, -1) if groups is None else value_codes(groups)
    unique = np.arange(num_items) + codes.max(initial=-1) + 1
    return np.where(codes < 0, unique, codes)


def _repeated_queries(rng: Generator, group_codes: Int64[ndarray, " items"]) -> Iterator[int]:
    """Items in random order, without end; nothing if no item has two items of other groups."""
    sizes = np.bincount(group_codes, minlength=1)
    eligible = np.flatnonzero(len(group_codes) - sizes[group_codes] >= 2)
    while len(eligible):
        yield from (int(item) for item in rng.permutation(eligible))


def _sample_shelf(
    rng: Generator, relevance: Float[ndarray, " items"], is_allowed: Bool[ndarray, " items"], size: int
) -> Int64[ndarray, " shelf"]:
    """Items in the order of the shelf, sampled by `_SHELF_MIX`; fewer than `size` if there are no more."""
    remaining, shelf = is_allowed.copy(), np.empty(0, dtype=np.int64)
    for minimum, upper_bound, cumulative_share in _SHELF_MIX:
        candidates = np.flatnonzero(remaining & (relevance >= minimum) & (relevance < upper_bound))
        count = min(round(cumulative_share * size) - len(shelf), len(candidates))
        sampled = rng.choice(candidates, count, replace=False)
        remaining[sampled] = False
        shelf = np.concatenate([shelf, sampled])
    return shelf[np.argsort(-(relevance[shelf] + _ORDER_NOISE * rng.standard_normal(len(shelf))))]


def _sample_taps(
    rng: Generator, relevance: Float[ndarray, " shelf"], position_bias: float
) -> Bool[ndarray, " shelf"]:
    examination_rate = (1.0 + np.arange(len(relevance))) ** -position_bias
    logistic = 1.0 / (1.0 + np.exp((_TAP_MIDPOINT - relevance) / _TAP_WIDTH))
    tap_rate = _TAP_FLOOR + (_TAP_CEILING - _TAP_FLOOR) * logistic
    return np.asarray(rng.random(len(relevance)) < examination_rate * tap_rate)


def _log_table(item_ids: Sequence[str], impressions: list[tuple[int, ndarray, ndarray]]) -> pa.Table:
    lengths = [len(shelf) for _, shelf, _ in impressions]
    columns = {
        IMPRESSION_ID: np.repeat(np.arange(len(impressions)), lengths),
        QUERY_ID: np.repeat([item_ids[query] for query, _, _ in impressions], lengths),
        ITEM_ID: [item_ids[item] for _, shelf, _ in impressions for item in shelf],
        POSITION: np.concatenate([np.arange(length) for length in lengths]),
        TAPPED: np.concatenate([tapped for _, _, tapped in impressions]),
        SIMULATED: np.ones(sum(lengths), dtype=bool),
    }
    return pa.table(columns).cast(LOG_SCHEMA)
