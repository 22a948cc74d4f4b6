"""Column names: two equal names would silently merge two columns."""

import dataclasses
from collections import Counter

from raysys import columns
from raysys.columns import LEDGER_SCHEMA, embedding_schema
from raysys.verify.repair import LedgerRow


def test_no_two_columns_share_a_name() -> None:
    names = Counter(value for key, value in vars(columns).items() if key.isupper() and isinstance(value, str))
    assert len(names) > 20
    assert [name for name, count in names.items() if count > 1] == []


def test_ledger_schema_has_the_fields_of_a_ledger_row() -> None:
    assert LEDGER_SCHEMA.names == [field.name for field in dataclasses.fields(LedgerRow)]


def test_embedding_column_has_the_dimensions_of_the_space() -> None:
    assert embedding_schema(7).field(columns.EMBEDDING).type.list_size == 7
