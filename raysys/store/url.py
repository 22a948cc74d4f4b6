"""The URL of the database: from the configuration, and checked.

Importing it does not import SQLAlchemy, which takes half a second in every process that plans a stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from raysys import storage
from raysys.config import Config
from raysys.config.store import without_password
from raysys.errors import InputError

if TYPE_CHECKING:
    from sqlalchemy import URL

SQLITE_FILE = "store.db"
_DRIVERS = {
    "sqlite": "sqlite+pysqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


def store_url(config: Config) -> str:
    """The URL of the configured database, with its password; the path of an SQLite file is absolute.

    Raises: InputError if the URL is not usable, or it is null and `root` is not a local path.
    """
    if config.store.url is None:
        if not storage.is_local(config.root):
            raise InputError(
                f"root: {config.root}: an object store cannot hold the SQLite file of the change log; "
                "set store.url=postgresql://USER@HOST/DATABASE"
            )
        from sqlalchemy import URL

        path = storage.join(storage.absolute(config.root), SQLITE_FILE)
        return URL.create("sqlite", database=path).render_as_string()
    url = parse_url(config.store.url)
    if url.get_backend_name() == "sqlite" and not str(url.database).startswith("/"):
        raise InputError(
            f"store.url: {config.store.url}: the path is relative to a folder that other processes do not "
            "have; give an absolute path after three slashes: sqlite:////data/store.db"
        )
    return config.store.url


def parse_url(text: str) -> URL:
    """The URL with the driver that raysys uses. Raises: InputError."""
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    where = without_password(text)
    try:
        url = make_url(text)
    except (ArgumentError, ValueError) as error:
        raise InputError(
            f"{where}: not the URL of a database; give postgresql://USER@HOST/DATABASE or sqlite:////PATH"
        ) from error
    if url.drivername not in _DRIVERS:
        raise InputError(
            f"{where}: databases of kind {url.drivername} are not supported; "
            "use postgresql://USER@HOST/DATABASE or sqlite:////PATH"
        )
    if "@" in (url.host or ""):
        raise InputError(f"{where}: has more than one @; write %40 for those in the password")
    if {"password", "sslpassword"} & url.query.keys():
        raise InputError(f"{where}: has a password in its query; give it in PGPASSWORD or PGPASSFILE")
    if url.get_backend_name() == "sqlite":
        if url.query:
            raise InputError(f"{where}: has options (?), which SQLite takes none of here; remove them")
        if url.database in (None, "", ":memory:"):
            raise InputError(f"{where}: a database in memory is not durable; give a file: sqlite:////PATH")
    return url.set(drivername=_DRIVERS[url.drivername])
