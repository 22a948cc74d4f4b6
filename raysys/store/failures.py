"""Kinds of errors of the databases: transient, full, locked, unusable."""

from __future__ import annotations

import sqlite3

from sqlalchemy.exc import DBAPIError, OperationalError, SQLAlchemyError

from raysys.errors import REASON_LENGTH, InputError, RaysysError, StoreFailed
from raysys.terminal import printable

# The SQLSTATE of PostgreSQL for a restart, a lost connection, or a transaction that may be repeated.
_TRANSIENT_STATES = ("08", "40001", "40P01", "53300", "57P01", "57P02", "57P03")
_FULL, _LOCKED = ("53100", "SQLITE_FULL"), ("55P03", "SQLITE_BUSY")
_UNUSABLE = ("SQLITE_CANTOPEN", "SQLITE_NOTADB", "SQLITE_READONLY", "SQLITE_PERM", "42501")


def is_transient(error: SQLAlchemyError) -> bool:
    """Whether the same transaction may succeed a moment later."""
    if not isinstance(error, DBAPIError):
        return False
    code = _code(error)
    if isinstance(error.orig, sqlite3.Error):
        return code.startswith("SQLITE_BUSY")
    if error.connection_invalidated or code.startswith(_TRANSIENT_STATES):
        return True
    # A connection that was refused has no SQLSTATE.
    return isinstance(error, OperationalError) and not code and not _is_refused_for_good(error)


def as_store_error(
    error: SQLAlchemyError, name: str, action: str, timeout_s: float, is_opening: bool
) -> RaysysError:
    """An error of SQLAlchemy as one of raysys: one line with the database, the reason and the remedy.

    While the log is opened, a place or an account that cannot be used is an InputError.
    """
    code = _code(error)
    reason = printable(" ".join(str(getattr(error, "orig", None) or error).split()), REASON_LENGTH)
    line = f"{name}: could not be {action} ({reason})"
    if is_opening and (code.startswith(_UNUSABLE) or _is_refused_for_good(error)):
        return InputError(f"{line}; check store.url, and the permissions there")
    if code.startswith(_FULL):
        return StoreFailed(f"{line}; free space there, then repeat the request")
    if code.startswith(_LOCKED):
        return StoreFailed(
            f"{line}; another process has written for more than {timeout_s:g} s: end it, "
            "or raise store.timeout_s"
        )
    return StoreFailed(f"{line}; check the database, then repeat the request")


def _code(error: SQLAlchemyError) -> str:
    """The name of SQLite's error code, or PostgreSQL's SQLSTATE; empty if there is none."""
    origin = getattr(error, "orig", None)
    return str(getattr(origin, "sqlite_errorname", None) or getattr(origin, "sqlstate", None) or "")


def _is_refused_for_good(error: SQLAlchemyError) -> bool:
    """Whether PostgreSQL refused the connection: the password, the user or the database is wrong.

    A server that starts or stops refuses, too, but not for good.
    """
    text = str(getattr(error, "orig", ""))
    return "FATAL:" in text and "the database system is" not in text and "connection slots" not in text
