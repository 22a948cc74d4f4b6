"""What the shelf showed for a query and what was tapped: read from a file, or drawn when there is none.

A rung is judged by re-ranking what was shown. An impression without a tap is the same for every
order, so it is left out, and counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from jaxtyping import Bool, Float, Int64
from numpy import ndarray
from numpy.random import Generator

from raysys import storage
from raysys.columns import IMPRESSION_ID, ITEM_ID, LOG_SCHEMA, POSITION, QUERY_ID, SIMULATED, TAPPED
from raysys.config.schema import SimulatedLog
from raysys.errors import InputError, MissingError, did_you_mean
from raysys.evaluate.attribute_precision import value_codes

# The shelf of a mediocre recommender, from close kin to strangers:
# (relevance from, relevance below, share of the shelf that is filled by then).
_SHELF_MIX = (
    (0.65, np.inf, 0.4),
    (0.35, 0.65, 0.5),
    (0.05, 0.35, 0.7),
    (0.0, 0.05, 1.0),
    (0.0, np.inf, 1.0),  # makes up for what the others lacked
)
_ORDER_NOISE = 1.2  # standard deviation, added to a relevance from 0 to 1 before the shelf is sorted
_TAP_FLOOR, _TAP_CEILING = 0.03, 0.95  # tap rates of an irrelevant and of a perfect item that is looked at
_TAP_MIDPOINT, _TAP_WIDTH = 0.6, 0.06  # between them a logistic rise over relevance
_MAX_SIMULATED_ITEMS = 20_000  # a larger catalogue is sampled: relevance to all costs 1 ms an impression
_PRIOR_SHOWS = 5.0  # how many shows at the overall tap rate an item starts with

_INTEGER, _TEXT, _BOOLEAN = "an integer", "text", "a boolean"
_ACCEPTED = {
    IMPRESSION_ID: (_INTEGER, _TEXT),
    QUERY_ID: (_TEXT, _INTEGER),
    ITEM_ID: (_TEXT, _INTEGER),
    POSITION: (_INTEGER,),
    TAPPED: (_BOOLEAN, _INTEGER),
}


@dataclass(frozen=True)
class InteractionLog:
    """Impressions with at least one tap; row i of every field belongs to impression i."""

    query_ids: list[str]
    shown_ids: list[list[str]]
    """In the order of the shelf, as long as the shelf was."""
    tapped: Bool[ndarray, "queries max_shown"]
    shown: Bool[ndarray, "queries max_shown"]
    """False is padding."""
    simulated: bool
    num_untapped: int = 0
    """Impressions that were left out because nothing was tapped."""

    @property
    def item_ids(self) -> set[str]:
        """All that it names: queries, and what was shown for them."""
        return {*self.query_ids, *(item_id for shown in self.shown_ids for item_id in shown)}

    def among(self, item_ids: Set[str], *, max_items: int) -> InteractionLog:
        """The first impressions that name these items alone, and no more than `max_items` of them."""
        kept: list[int] = []
        named: set[str] = set()
        for number, (query_id, shown_ids) in enumerate(zip(self.query_ids, self.shown_ids, strict=True)):
            here = {query_id, *shown_ids}
            if here <= item_ids and len(named | here) <= max_items:
                named |= here
                kept.append(number)
        return replace(
            self,
            query_ids=[self.query_ids[number] for number in kept],
            shown_ids=[self.shown_ids[number] for number in kept],
            tapped=self.tapped[kept],
            shown=self.shown[kept],
        )


def read_log(table_or_uri: pa.Table | str) -> InteractionLog:
    """The log from a table, a Parquet file or a folder of them; rows may come in any order.

    Ids may be text or integers, `tapped` a boolean or a number of taps; `simulated` may be absent.
    Raises: MissingError if there is no such file; InputError if it is not a usable log.
    """
    where = table_or_uri if isinstance(table_or_uri, str) else "the interaction log"
    table = _read_parquet(where) if isinstance(table_or_uri, str) else table_or_uri
    columns = _checked_columns(table, where)
    impressions = pa.compute.dictionary_encode(columns[IMPRESSION_ID]).indices.to_numpy()
    order = np.lexsort((columns[POSITION].to_numpy(), impressions))
    impressions = impressions[order]
    starts = np.flatnonzero(np.diff(impressions, prepend=-1))
    lengths = np.diff(starts, append=len(impressions))
    query_ids, item_ids = (columns[name].take(pa.array(order)).to_pylist() for name in (QUERY_ID, ITEM_ID))
    _check_one_query_each(value_codes(query_ids), impressions, query_ids, where)

    shown = np.arange(lengths.max())[None, :] < lengths[:, None]
    tapped = np.zeros_like(shown)
    tapped[shown] = columns[TAPPED].to_numpy(zero_copy_only=False)[order]
    kept = np.flatnonzero(tapped.any(axis=1))
    if not len(kept):
        raise InputError(
            f"{where}: none of {len(starts)} impressions has a tap; log taps, or choose a longer time"
        )
    width = lengths[kept].max()
    return InteractionLog(
        query_ids=[query_ids[starts[i]] for i in kept],
        shown_ids=[item_ids[starts[i] : starts[i] + lengths[i]] for i in kept],
        tapped=tapped[kept, :width],
        shown=shown[kept, :width],
        simulated=SIMULATED in table.column_names and bool(pa.compute.any(table[SIMULATED]).as_py()),
        num_untapped=len(starts) - len(kept),
    )


def popularity_scores(log: InteractionLog) -> Float[ndarray, "queries max_shown"]:
    """Smoothed tap rate of each shown item over all the other impressions; NaN in padding.

    The impression that is ranked is left out: its own taps are what is to be foretold.
    """
    rows, _ = np.nonzero(log.shown)
    items = value_codes(item_id for shelf in log.shown_ids for item_id in shelf)
    taps = log.tapped[log.shown].astype(np.float64)
    _, own = np.unique(rows * (items.max() + 1) + items, return_inverse=True)
    other_taps = np.bincount(items, taps)[items] - np.bincount(own, taps)[own]
    other_shows = np.bincount(items)[items] - np.bincount(own)[own]
    scores = np.full(log.shown.shape, np.nan)
    scores[log.shown] = (other_taps + _PRIOR_SHOWS * taps.mean()) / (other_shows + _PRIOR_SHOWS)
    return scores


def simulate_log(
    item_ids: Sequence[str],
    attributes: Mapping[str, Sequence[str]],
    section: SimulatedLog,
    groups: Sequence[str] | None = None,
) -> pa.Table:
    """Exactly `section.queries` impressions with a tap, as a mediocre shelf would have got them.

    A shelf mixes items that share several, one or none of the query's attributes, in an order that
    only leans towards the attractive ones. A tap needs a look (position bias) and an attractive item:
    relevance is the summed weight of equal attributes. Items of the query's own group (the same thing,
    listed again) are not shown. Queries repeat, with other shelves, if there are fewer items; of a
    very large catalogue a sample takes part.
    Raises: InputError if a weight names an unknown attribute or there is nothing to show.
    """
    rng = np.random.default_rng(section.seed)
    num_items = min(len(item_ids), _MAX_SIMULATED_ITEMS)
    chosen = np.sort(rng.choice(len(item_ids), num_items, replace=False))
    kinship = _Kinship.of(attributes, section.weights, chosen)
    own_group = _group_codes(groups, len(item_ids))[chosen]
    impressions: list[tuple[int, ndarray, ndarray]] = []
    for query in _endless_queries(rng, own_group):
        relevance = kinship.to(query)
        shelf = _draw_shelf(rng, relevance, own_group != own_group[query], section.shelf_size)
        tapped = _draw_taps(rng, relevance[shelf], section.position_bias)
        if tapped.any():
            impressions.append((query, shelf, tapped))
        if len(impressions) == section.queries:
            return _log_table([item_ids[item] for item in chosen], impressions)
    raise InputError(
        f"evaluate.log: {len(item_ids)} items, but no query has two others to show beside its own group; "
        "add items, or widen evaluate.splits"
    )


@dataclass(frozen=True)
class _Kinship:
    """How alike an item is to all items, from the attributes that have a weight."""

    codes: list[Int64[ndarray, " items"]]
    weights: list[float]

    @classmethod
    def of(
        cls, attributes: Mapping[str, Sequence[str]], weights: Mapping[str, float], items: ndarray
    ) -> _Kinship:
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

    def to(self, item: int) -> Float[ndarray, " items"]:
        """Relevance from 0 to 1: the weight of equal attributes."""
        equal = [(codes == codes[item]) & (codes[item] >= 0) for codes in self.codes]
        relevance = sum(weight * same for weight, same in zip(self.weights, equal, strict=True))
        return np.asarray(relevance, dtype=np.float64)


def _group_codes(groups: Sequence[str] | None, num_items: int) -> Int64[ndarray, " items"]:
    codes = np.full(num_items, -1) if groups is None else value_codes(groups)
    own = np.arange(num_items) + codes.max(initial=-1) + 1
    return np.where(codes < 0, own, codes)  # without a group an item is one of its own


def _endless_queries(rng: Generator, own_group: Int64[ndarray, " items"]) -> Iterator[int]:
    """Items in random order, again and again; nothing if none has two items of other groups."""
    sizes = np.bincount(own_group, minlength=1)
    eligible = np.flatnonzero(len(own_group) - sizes[own_group] >= 2)
    while len(eligible):
        yield from (int(item) for item in rng.permutation(eligible))


def _draw_shelf(
    rng: Generator, relevance: Float[ndarray, " items"], is_allowed: Bool[ndarray, " items"], size: int
) -> Int64[ndarray, " shelf"]:
    left, shelf = is_allowed.copy(), np.empty(0, dtype=np.int64)
    for lowest, below, filled in _SHELF_MIX:
        candidates = np.flatnonzero(left & (relevance >= lowest) & (relevance < below))
        drawn = rng.choice(candidates, min(round(filled * size) - len(shelf), len(candidates)), replace=False)
        left[drawn] = False
        shelf = np.concatenate([shelf, drawn])
    return shelf[np.argsort(-(relevance[shelf] + _ORDER_NOISE * rng.standard_normal(len(shelf))))]


def _draw_taps(
    rng: Generator, relevance: Float[ndarray, " shelf"], position_bias: float
) -> Bool[ndarray, " shelf"]:
    looked_at = (1.0 + np.arange(len(relevance))) ** -position_bias
    rise = 1.0 / (1.0 + np.exp((_TAP_MIDPOINT - relevance) / _TAP_WIDTH))
    attractive = _TAP_FLOOR + (_TAP_CEILING - _TAP_FLOOR) * rise
    return np.asarray(rng.random(len(relevance)) < looked_at * attractive)


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


def _read_parquet(uri: str) -> pa.Table:
    """A file, or all Parquet files of a folder; empty if a column is missing that cannot be done without."""
    if not storage.exists(uri):
        raise MissingError(f"{uri}: no such interaction log; check evaluate.log.path")
    uris = [uri]
    if storage.is_folder(uri):
        names = sorted(name for name in storage.list_files(uri) if name.endswith(".parquet"))
        uris = [storage.join(uri, name) for name in names]
        if not uris:
            raise MissingError(f"{uri}: no Parquet file in it; check evaluate.log.path")
    return pa.concat_tables([_read_parquet_file(one) for one in uris], promote_options="permissive")


def _read_parquet_file(uri: str) -> pa.Table:
    try:
        with storage.open_input(uri) as stream, pa.parquet.ParquetFile(stream) as file:
            wanted = [name for name in LOG_SCHEMA.names if name in file.schema_arrow.names]
            missing_any = any(name not in wanted for name in _ACCEPTED)
            return file.schema_arrow.empty_table() if missing_any else file.read(columns=wanted)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{uri}: not a Parquet file ({error}); write the interaction log as Parquet"
        ) from error


def _checked_columns(table: pa.Table, where: str) -> dict[str, pa.Array]:
    found = ", ".join(table.column_names) or "none"
    for name, accepted in _ACCEPTED.items():
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names) or "; rename or add it"
            raise InputError(f"{where}: no column '{name}' (found: {found}){hint}")
        dtype = table.schema.field(name).type
        if _kind_of(dtype) not in accepted:
            raise InputError(
                f"{where}: column '{name}' is {dtype}, should be {' or '.join(accepted)}; cast it"
            )
        if table[name].null_count:
            raise InputError(
                f"{where}: column '{name}' is empty in {table[name].null_count} rows; drop or fill them"
            )
    if not table.num_rows:
        raise InputError(f"{where}: no rows (columns: {found}); an interaction log needs impressions")
    target = {QUERY_ID: pa.string(), ITEM_ID: pa.string(), TAPPED: pa.bool_()}
    return {
        name: pa.compute.cast(table[name], target.get(name, table.schema.field(name).type)).combine_chunks()
        for name in _ACCEPTED
    }


def _kind_of(dtype: pa.DataType) -> str:
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    if pa.types.is_integer(dtype):
        return _INTEGER
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return _TEXT
    return _BOOLEAN if pa.types.is_boolean(dtype) else str(dtype)


def _check_one_query_each(queries: ndarray, impressions: ndarray, query_ids: list[str], where: str) -> None:
    changed = np.flatnonzero((np.diff(impressions) == 0) & (np.diff(queries) != 0))
    if len(changed):
        first, second = query_ids[changed[0]], query_ids[changed[0] + 1]
        raise InputError(
            f"{where}: an {IMPRESSION_ID} has two queries ('{first}' and '{second}'); "
            "number impressions uniquely"
        )
