"""The section `store`: the database of the change log."""

from __future__ import annotations

import re

from pydantic import Field, PositiveFloat, field_serializer

from raysys.config.section import Section

# Up to the last `@` before the path: a password may hold an `@` that somebody forgot to encode.
_USER_PASSWORD = re.compile(r"(://[^:/@\s]*):[^@]*@([^/?\s]*@)?")
_QUERY_PASSWORD = re.compile(r"(?<=password=)[^&\s'\"]+")


class StoreConfig(Section):
    """The change log of the catalogue: upserts and deletes of items, durable in a database."""

    url: str | None = Field(default=None, repr=False)
    """SQLAlchemy URL of the database: `postgresql://USER@HOST/DATABASE`, or `sqlite:////PATH`. Null: SQLite,
    in the file `store.db` under `root`, which must then be on a local disk. PGPASSWORD or PGPASSFILE has the
    password; one in the URL is used, but not printed, written or submitted with a configuration."""
    timeout_s: PositiveFloat = 10.0
    """Maximum wait for the database, in seconds: for a connection, for the end of another process's write,
    and for a database that restarts."""

    @field_serializer("url", when_used="json-unless-none")
    def _without_password(self, url: str) -> str:
        return without_password(url)


def without_password(text: str) -> str:
    """The text, with the passwords of the URLs in it left out."""
    return _QUERY_PASSWORD.sub("", _USER_PASSWORD.sub(r"\1@", text))
