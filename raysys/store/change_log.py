"""The log of all changes of a catalogue, in the order in which they became durable."""

from __future__ import annotations

import itertools
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float32
from sqlalchemy import (
    BigInteger,
    BindParameter,
    Connection,
    ScalarSelect,
    Select,
    and_,
    bindparam,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import postgresql, sqlite

from raysys.columns import ITEM_ID
from raysys.config.schema import StoreConfig
from raysys.errors import InputError
from raysys.store.changes import Change, LoggedChange
from raysys.store.database import Database
from raysys.store.rows import CheckedChange, Row, checked_change, item_key, logged_change, vector_bytes
from raysys.store.tables import COMPARED, FORMAT, changes, formats, metadata, vectors

T = TypeVar("T")
_VALUES = 1000  # of one IN (..)


def _last_of_item(up_to: BindParameter[int] | None = None) -> ScalarSelect[int]:
    """The last sequence of the item of a row of `changes`: a look-up in the index for each row.

    A join would let PostgreSQL read the complete table for every page.
    """
    other = changes.alias("other")
    query = select(func.max(other.c.sequence)).where(other.c.item_key == changes.c.item_key)
    if up_to is not None:
        query = query.where(other.c.sequence <= up_to)
    return query.correlate(changes).scalar_subquery()


# The statements are built once: to build one takes longer than to execute it.
_OF_SPACE = and_(vectors.c.sequence == changes.c.sequence, vectors.c.space_id == bindparam("space_id"))
_LOGGED = (
    select(changes, vectors.c.vector)
    .select_from(changes.outerjoin(vectors, _OF_SPACE))
    .order_by(changes.c.sequence)
)
_PAGE = _LOGGED.where(changes.c.sequence > bindparam("after")).limit(bindparam("limit"))
_AT = _LOGGED.where(changes.c.sequence.in_(bindparam("sequences", expanding=True)))
_LATEST = _PAGE.where(
    changes.c.sequence <= bindparam("up_to"),
    changes.c.sequence == _last_of_item(bindparam("up_to", type_=BigInteger)),
)
_WITHOUT_VECTOR = _PAGE.where(
    ~changes.c.is_delete, vectors.c.vector.is_(None), changes.c.sequence == _last_of_item()
)
_LATEST_BY_ITEM = select(changes).where(
    changes.c.sequence == _last_of_item(), changes.c.item_key.in_(bindparam("item_keys", expanding=True))
)
_LAST = select(func.coalesce(func.max(changes.c.sequence), 0))
_UPSERTS = select(changes.c.sequence).where(
    ~changes.c.is_delete, changes.c.sequence.in_(bindparam("sequences", expanding=True))
)
_INSERT_CHANGES = insert(changes)
_INSERT_VECTORS = {
    "sqlite": sqlite.insert(vectors).on_conflict_do_nothing(),
    "postgresql": postgresql.insert(vectors).on_conflict_do_nothing(),
}


class ChangeLog:
    """The change log in a database, for any number of threads and processes.

    Creates the tables if there are none. `timeout_s` is `store.timeout_s`.
    Raises: InputError if the database cannot be used, StoreFailed if it does not answer. Every method raises
    StoreFailed.
    """

    def __init__(self, url: str, timeout_s: float = StoreConfig().timeout_s) -> None:
        self._database = Database(url, timeout_s)
        try:
            self._database.open(partial(_create_tables, name=self._database.name))
        except BaseException:
            self.close()
            raise

    def append(self, new: Sequence[Change]) -> list[int]:
        """Make the changes durable, all or none, and return their sequences, which ascend in commit order.

        A change that equals the latest one of its item is not stored again: its sequence is that of the
        stored one, which gets the vectors of further spaces. So a request without an answer can be repeated.
        Raises: InputError for a text, an attribute or a vector that cannot be stored.
        """
        return self.append_checked([checked_change(change) for change in new])

    def append_checked(self, new: Sequence[CheckedChange]) -> list[int]:
        """As `append`, for changes that were checked before, in another process."""
        return self._database.write(partial(_append, new=new)) if new else []

    def after(self, sequence: int, space_id: str, limit: int = 1000) -> list[LoggedChange]:
        """The first `limit` changes after a sequence, in order; none that commits later precedes them.

        An Upsert has only the vector of this space, or none if it was not embedded in it.
        """
        return self._read(_PAGE, space_id, after=sequence, limit=limit)

    def at(self, sequences: Collection[int], space_id: str) -> list[LoggedChange]:
        """The changes of these sequences, in order, each as in `after`."""
        found: list[LoggedChange] = []
        for some in _parts(sorted(sequences)):
            found += self._read(_AT, space_id, sequences=some)
        return found

    def latest(self, space_id: str, up_to: int, page: int = 1000) -> Iterator[LoggedChange]:
        """The last change of each item up to a sequence, in order of their sequences.

        It reads `page` changes at a time, each page in a transaction of its own.
        """
        sequence = 0
        while found := self._read(_LATEST, space_id, after=sequence, up_to=up_to, limit=page):
            yield from found
            sequence = found[-1].sequence

    def last(self) -> int:
        """The sequence of the last change; 0 without a change."""
        return self._database.read(_last)

    def add_vectors(self, space_id: str, of_sequences: Mapping[int, Float32[np.ndarray, " d"]]) -> None:
        """Store the vectors of a further space, by the sequence of their Upsert; existing ones stay.

        Raises: InputError for a vector that cannot be stored, or a sequence that is not of an Upsert.
        """
        rows = [
            _vector_row(sequence, space_id, vector_bytes(vector, space_id, f"change {sequence}"))
            for sequence, vector in of_sequences.items()
        ]

        def add(connection: Connection) -> None:
            _check_upserts(connection, of_sequences)
            _insert_vectors(connection, rows)

        self._database.write(add)

    def without_vector(self, space_id: str, limit: int, after: int = 0) -> list[LoggedChange]:
        """The first `limit` upserts after a sequence that are the last of their item and lack a vector."""
        return self._read(_WITHOUT_VECTOR, space_id, after=after, limit=limit)

    def close(self) -> None:
        """Close the connections to the database."""
        self._database.close()

    def _read(self, query: Select[Any], space_id: str, **parameters: object) -> list[LoggedChange]:
        values = {"space_id": space_id, **parameters}
        rows = self._database.read(lambda connection: connection.execute(query, values).mappings().all())
        return [logged_change(dict(row), space_id) for row in rows]


def _create_tables(connection: Connection, *, name: str) -> None:
    """Create the tables that do not exist. Raises: InputError for those of another format."""
    if connection.dialect.name == "postgresql":
        encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
        if encoding != "UTF8":
            raise InputError(f"{name}: has the encoding {encoding}; create a database with ENCODING 'UTF8'")
    formats.create(connection, checkfirst=True)
    found = connection.execute(select(formats.c.format)).scalar()
    if found is None:
        metadata.create_all(connection)
        connection.execute(insert(formats).values(format=FORMAT))
    elif found != FORMAT:
        raise InputError(
            f"{name}: has tables of format {found}, this version of raysys has format {FORMAT}; "
            "use the version that made them, or another database"
        )


def _append(connection: Connection, *, new: Sequence[CheckedChange]) -> list[int]:
    keys = [item_key(change.row[ITEM_ID]) for change in new]
    latest = _latest_by_item(connection, set(keys))
    next_sequences = itertools.count(_last(connection) + 1)
    accepted_at = time.time()
    new_rows: list[Row] = []
    sequences: list[int] = []
    for key, (row, _) in zip(keys, new, strict=True):
        known = latest.get(key)
        if known is None or any(known[name] != row[name] for name in COMPARED):
            known = {**row, "item_key": key, "sequence": next(next_sequences), "accepted_at": accepted_at}
            latest[key] = known
            new_rows.append(known)
        sequences.append(known["sequence"])
    if new_rows:
        connection.execute(_INSERT_CHANGES, new_rows)
    vector_rows = [
        _vector_row(sequence, space_id, vector)
        for sequence, (_, vectors) in zip(sequences, new, strict=True)
        for space_id, vector in vectors.items()
    ]
    _insert_vectors(connection, vector_rows)
    return sequences


def _latest_by_item(connection: Connection, keys: Iterable[bytes]) -> dict[bytes, Row]:
    return {
        row["item_key"]: dict(row)
        for some in _parts(keys)
        for row in connection.execute(_LATEST_BY_ITEM, {"item_keys": some}).mappings()
    }


def _last(connection: Connection) -> int:
    return int(connection.execute(_LAST).scalar_one())


def _check_upserts(connection: Connection, sequences: Iterable[int]) -> None:
    wanted = set(sequences)
    found = {
        sequence
        for some in _parts(wanted)
        for sequence in connection.execute(_UPSERTS, {"sequences": some}).scalars()
    }
    if unknown := wanted - found:
        raise InputError(
            f"change {min(unknown)}: is no upsert of this log; give sequences of `without_vector`"
        )


def _vector_row(sequence: int, space_id: str, vector: bytes) -> Row:
    return {"sequence": sequence, "space_id": space_id, "vector": vector}


def _insert_vectors(connection: Connection, rows: list[Row]) -> None:
    """Insert the vectors that do not exist yet."""
    if rows:
        connection.execute(_INSERT_VECTORS[connection.dialect.name], rows)


def _parts(values: Iterable[T]) -> Iterator[list[T]]:
    remaining = iter(values)
    while some := list(itertools.islice(remaining, _VALUES)):
        yield some
