"""Transactions on SQLite or PostgreSQL: writers one after the other, durable, retried for a limited time."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, func, select
from sqlalchemy.exc import DBAPIError, TimeoutError

from raysys import storage
from raysys.config.store import without_password
from raysys.errors import InputError
from raysys.store.failures import as_store_error, is_transient
from raysys.store.url import parse_url

T = TypeVar("T")
_FIRST_WAIT_S, _MAX_WAIT_S = 0.1, 2.0
_WRITER_LOCK = 0x7261_7973_7973  # "raysys": key of the advisory lock, one for each PostgreSQL database
_IS_WRITER = "raysys_is_writer"


class Database:
    """A database by URL; `name` is its URL without the password. Several threads may call its methods.

    Raises: InputError for a URL that cannot be used, or a missing driver.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self.name = without_password(url)
        self._timeout_s = timeout_s
        self._engine = _engine(url, timeout_s)
        self._writer = self._engine.execution_options(**{_IS_WRITER: True})
        event.listen(self._engine, "begin", self._begin)

    def open(self, work: Callable[[Connection], T]) -> T:
        """As `write`; raises InputError for a place or an account that cannot be used."""
        return self._run(self._writer, work, "opened", is_opening=True)

    def write(self, work: Callable[[Connection], T]) -> T:
        """Call `work` in a transaction of the only writer; when it returns, all of it is durable.

        `work` is repeated after a transient error, also if the commit may have succeeded: it must be safe to
        repeat. Raises: StoreFailed, and the errors of `work`; then none of it is stored.
        """
        return self._run(self._writer, work, "written")

    def read(self, work: Callable[[Connection], T]) -> T:
        """Call `work` in a transaction that does not wait for writers. Raises: StoreFailed."""
        return self._run(self._engine, work, "read")

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _run(
        self, engine: Engine, work: Callable[[Connection], T], action: str, *, is_opening: bool = False
    ) -> T:
        deadline = time.monotonic() + self._timeout_s
        for tries in itertools.count():
            try:
                with engine.begin() as connection:
                    return work(connection)
            except (DBAPIError, TimeoutError) as error:
                wait_s = min(_FIRST_WAIT_S * 2**tries, _MAX_WAIT_S)
                if not is_transient(error) or time.monotonic() + wait_s > deadline:
                    raise as_store_error(error, self.name, action, self._timeout_s, is_opening) from error
                time.sleep(wait_s)
        raise AssertionError("unreachable")

    def _begin(self, connection: Connection) -> None:
        """Begin a transaction. A writer waits for the one before it, so that sequences commit in order."""
        is_writer = connection.get_execution_options().get(_IS_WRITER, False)
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writer else "BEGIN")
        elif is_writer:
            wait = f"{math.ceil(self._timeout_s * 1000)}ms"
            connection.execute(
                select(
                    func.set_config("lock_timeout", wait, True),
                    func.set_config("synchronous_commit", "on", True),
                )
            )
            connection.execute(select(func.pg_advisory_xact_lock(_WRITER_LOCK)))


def _engine(text: str, timeout_s: float) -> Engine:
    url = parse_url(text)
    if url.get_backend_name() == "sqlite":
        folder = str(storage.local_path(str(url.database)).parent)
        storage.require_folder(folder)
        storage.create_folder(folder)
        engine = create_engine(url, connect_args={"timeout": timeout_s}, pool_timeout=timeout_s)
        event.listen(engine, "connect", _prepare_sqlite)
        return engine
    try:
        return create_engine(
            url,
            # The lock comes before the snapshot only if each statement has a snapshot of its own.
            isolation_level="READ COMMITTED",
            pool_pre_ping=True,  # a connection from before a restart is replaced
            pool_timeout=timeout_s,
            connect_args={
                "connect_timeout": math.ceil(timeout_s),
                "tcp_user_timeout": math.ceil(timeout_s * 1000),
                "keepalives_idle": math.ceil(timeout_s),
                "application_name": "raysys",
            },
        )
    except ImportError as error:
        raise InputError(
            f"{without_password(text)}: PostgreSQL needs the driver psycopg; pip install 'raysys[postgres]'"
        ) from error


def _prepare_sqlite(connection: Any, _: object) -> None:
    """Readers beside a writer (WAL), a flush at every commit, and transactions that `_begin` begins."""
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
