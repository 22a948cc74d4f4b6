"""The tables of the change log, the same on every database."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)

from raysys import columns

FORMAT = 1  # raise it when the layout or the meaning of a column changes

metadata = MetaData()

formats = Table("raysys_format", metadata, Column("format", Integer, primary_key=True, autoincrement=False))

changes = Table(
    "raysys_changes",
    metadata,
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("accepted_at", Double, nullable=False),
    # SHA-256 of the id: PostgreSQL cannot index texts of more than 2,704 bytes.
    Column("item_key", LargeBinary(32), nullable=False),
    Column(columns.ITEM_ID, Text, nullable=False),
    Column("is_delete", Boolean, nullable=False),
    # Null in a delete.
    Column(columns.TITLE, Text),
    Column(columns.ATTRIBUTES, Text),
    Column(columns.CONTENT_HASH, Text),
    Column(columns.GROUP, Text),
    Column("photo_uri", Text),
    Column("photo_bytes", BigInteger),
)
Index("raysys_changes_of_item", changes.c.item_key, changes.c.sequence)

vectors = Table(
    "raysys_vectors",
    metadata,
    Column("sequence", BigInteger, ForeignKey(changes.c.sequence), primary_key=True, autoincrement=False),
    Column("space_id", Text, primary_key=True),
    Column("vector", LargeBinary, nullable=False),  # float32, little-endian
)

# Two changes of one item are equal if these columns are.
COMPARED = (
    "is_delete",
    columns.TITLE,
    columns.ATTRIBUTES,
    columns.CONTENT_HASH,
    columns.GROUP,
    "photo_uri",
    "photo_bytes",
)
