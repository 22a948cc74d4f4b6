"""Interaction logs: what a shelf showed for a query item and which of it was tapped, read from Parquet.

A system is evaluated by re-ranking the items that were shown. Every order of an impression without a tap
scores the same, so such impressions are left out and counted.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from jaxtyping import Bool
from numpy import ndarray

from raysys import storage
from raysys.columns import IMPRESSION_ID, ITEM_ID, LOG_SCHEMA, POSITION, QUERY_ID, SIMULATED, TAPPED
from raysys.errors import InputError, MissingError, did_you_mean
from raysys.evaluate.attribute_precision import value_codes

_INTEGER, _TEXT, _BOOLEAN = "an integer", "text", "a boolean"
_ACCEPTED_TYPES = {
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
    """Item ids in the order in which they were shown, without padding."""
    tapped: Bool[ndarray, "queries max_shown"]
    shown: Bool[ndarray, "queries max_shown"]
    """False marks padding."""
    simulated: bool
    num_untapped: int = 0
    """Number of impressions left out because they have no tap."""

    @property
    def item_ids(self) -> set[str]:
        """The ids of all query items and shown items."""
        return {*self.query_ids, *(item_id for shown in self.shown_ids for item_id in shown)}

    def restrict_to(self, item_ids: Set[str], *, max_items: int) -> InteractionLog:
        """The impressions whose items are all in `item_ids`, with at most `max_items` distinct items in all.

        An impression that would exceed `max_items` is left out; later ones may still fit.
        """
        rows: list[int] = []
        selected: set[str] = set()
        for row, (query_id, shown_ids) in enumerate(zip(self.query_ids, self.shown_ids, strict=True)):
            impression = {query_id, *shown_ids}
            if impression <= item_ids and len(selected | impression) <= max_items:
                selected |= impression
                rows.append(row)
        return replace(
            self,
            query_ids=[self.query_ids[row] for row in rows],
            shown_ids=[self.shown_ids[row] for row in rows],
            tapped=self.tapped[rows],
            shown=self.shown[rows],
        )

    def without_items(self, item_ids: Set[str]) -> InteractionLog:
        """The log as if these items had not been shown; impressions of a query among them, and those whose
        taps were all on them, are left out.

        Raises: InputError if no impression remains.
        """
        keeps = [np.array([item_id not in item_ids for item_id in shown]) for shown in self.shown_ids]
        rows = [
            row
            for row, (query_id, is_kept) in enumerate(zip(self.query_ids, keeps, strict=True))
            if query_id not in item_ids and self.tapped[row, : len(is_kept)][is_kept].any()
        ]
        if not rows:
            raise InputError(
                f"the interaction log: none of {len(self.query_ids)} impressions has a tap on an item that "
                "every baseline has; add the vectors that are missing (evaluate.baselines)"
            )
        lengths = np.array([int(keeps[row].sum()) for row in rows])
        shown = np.arange(lengths.max())[None, :] < lengths[:, None]
        tapped = np.zeros_like(shown)
        tapped[shown] = np.concatenate([self.tapped[row, : len(keeps[row])][keeps[row]] for row in rows])
        return replace(
            self,
            query_ids=[self.query_ids[row] for row in rows],
            shown_ids=[
                [item_id for item_id in self.shown_ids[row] if item_id not in item_ids] for row in rows
            ],
            tapped=tapped,
            shown=shown,
        )


def read_log(table_or_uri: pa.Table | str) -> InteractionLog:
    """Read a log from a table, a Parquet file or a folder of Parquet files; rows may be in any order.

    Ids may be text or integers, `tapped` a boolean or a number of taps; `simulated` is optional.
    Raises: MissingError if the file does not exist; InputError if it is not a usable log.
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
    _check_one_query_per_impression(value_codes(query_ids), impressions, query_ids, where)

    shown = np.arange(lengths.max())[None, :] < lengths[:, None]
    tapped = np.zeros_like(shown)
    tapped[shown] = columns[TAPPED].to_numpy(zero_copy_only=False)[order]
    rows = np.flatnonzero(tapped.any(axis=1))
    if not len(rows):
        raise InputError(
            f"{where}: none of {len(starts)} impressions has a tap; "
            "check that taps are logged, or use a longer period"
        )
    width = lengths[rows].max()
    return InteractionLog(
        query_ids=[query_ids[starts[row]] for row in rows],
        shown_ids=[item_ids[starts[row] : starts[row] + lengths[row]] for row in rows],
        tapped=tapped[rows, :width],
        shown=shown[rows, :width],
        simulated=SIMULATED in table.column_names and bool(pa.compute.any(table[SIMULATED]).as_py()),
        num_untapped=len(starts) - len(rows),
    )


def _read_parquet(uri: str) -> pa.Table:
    """The rows of a Parquet file, or of all Parquet files of a folder in the order of their names."""
    if not storage.exists(uri):
        raise MissingError(f"{uri}: no such interaction log; check evaluate.log.path")
    uris = [uri]
    if storage.is_folder(uri):
        names = sorted(name for name in storage.list_files(uri) if name.endswith(".parquet"))
        uris = [storage.join(uri, name) for name in names]
        if not uris:
            raise MissingError(f"{uri}: no Parquet file in it; check evaluate.log.path")
    return pa.concat_tables([_read_parquet_file(file_uri) for file_uri in uris], promote_options="permissive")


def _read_parquet_file(uri: str) -> pa.Table:
    """The log's columns; an empty table with the file's schema if a required column is missing."""
    try:
        with storage.open_input(uri) as stream, pa.parquet.ParquetFile(stream) as file:
            names = [name for name in LOG_SCHEMA.names if name in file.schema_arrow.names]
            is_missing_any = any(name not in names for name in _ACCEPTED_TYPES)
            return file.schema_arrow.empty_table() if is_missing_any else file.read(columns=names)
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{uri}: not a Parquet file ({error}); write the interaction log as Parquet"
        ) from error


def _checked_columns(table: pa.Table, where: str) -> dict[str, pa.Array]:
    """The required columns with ids as strings and `tapped` as booleans.

    Raises: InputError for a missing column, an unusable type, an empty value or no rows.
    """
    found = ", ".join(table.column_names) or "none"
    for name, accepted in _ACCEPTED_TYPES.items():
        if name not in table.column_names:
            hint = did_you_mean(name, table.column_names) or "; rename or add it"
            raise InputError(f"{where}: no column '{name}' (found: {found}){hint}")
        dtype = table.schema.field(name).type
        if _type_name(dtype) not in accepted:
            raise InputError(
                f"{where}: column '{name}' is {dtype}, should be {' or '.join(accepted)}; cast it"
            )
        if table[name].null_count:
            raise InputError(
                f"{where}: column '{name}' is empty in {table[name].null_count} rows; drop or fill them"
            )
    if not table.num_rows:
        raise InputError(f"{where}: no rows (columns: {found}); an interaction log needs impressions")
    target_types = {QUERY_ID: pa.string(), ITEM_ID: pa.string(), TAPPED: pa.bool_()}
    return {
        name: pa.compute.cast(
            table[name], target_types.get(name, table.schema.field(name).type)
        ).combine_chunks()
        for name in _ACCEPTED_TYPES
    }


def _type_name(dtype: pa.DataType) -> str:
    if pa.types.is_dictionary(dtype):
        dtype = dtype.value_type
    if pa.types.is_integer(dtype):
        return _INTEGER
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        return _TEXT
    return _BOOLEAN if pa.types.is_boolean(dtype) else str(dtype)


def _check_one_query_per_impression(
    query_codes: ndarray, impressions: ndarray, query_ids: list[str], where: str
) -> None:
    changed = np.flatnonzero((np.diff(impressions) == 0) & (np.diff(query_codes) != 0))
    if len(changed):
        first, second = query_ids[changed[0]], query_ids[changed[0] + 1]
        raise InputError(
            f"{where}: an {IMPRESSION_ID} has two queries ('{first}' and '{second}'); "
            "number impressions uniquely"
        )
