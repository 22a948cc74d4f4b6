"""Rows of a Parquet file, read in batches of a few megabytes because the table may hold the photos.

Memory is bounded by one batch plus one decompressed page per column.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import storage
from raysys.errors import InputError
from raysys.pack.catalog.raw_rows import ID_SETTING, RawRow, Unreadable, require_columns

_BATCH_BYTES = 8 << 20
_MAX_BATCH_ROWS = 1024
_BUFFER_BYTES = 1 << 20
# Text that is not UTF-8, a time that Python cannot represent, an unknown time zone.
_UNREADABLE = (ValueError, OverflowError, KeyError)
_EXACT_BELOW = {pa.float16(): 2**11, pa.float32(): 2**24}  # every integer has a float of its own


def read_parquet(uri: str, required: dict[str, str], optional: tuple[str, ...]) -> Iterator[RawRow]:
    """Yield every row; `source` counts rows from 0, as pandas and DuckDB do.

    Raises: InputError for a file that is not Parquet, is damaged, or lacks a `required` column.
    """
    try:
        with (
            storage.open_input(uri) as stream,
            pq.ParquetFile(stream, buffer_size=_BUFFER_BYTES, pre_buffer=False) as file,
        ):
            names = list(file.schema_arrow.names)
            require_columns(uri, required, names)
            columns = [name for name in (*required.values(), *optional) if name in names]
            number = 0
            for batch in _batches(file, columns):
                for values in _rows_of(batch, required[ID_SETTING]):
                    yield RawRow(f"{uri}:row {number}", values)
                    number += 1
    except (pa.ArrowInvalid, OSError, UnicodeDecodeError) as error:  # the last for the name of a column
        message = " ".join(str(error).split())[:160]
        raise InputError(f"{uri}: not a readable Parquet file ({message}); write it again") from error


def _rows_of(batch: Any, id_column: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = batch.to_pylist()
    except _UNREADABLE:
        columns = {name: [_value(cell) for cell in batch.column(name)] for name in batch.schema.names}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    exact_below = _EXACT_BELOW.get(batch.schema.field(id_column).type)
    for values in rows if exact_below else ():
        number = values[id_column]
        if number is not None and abs(number) >= exact_below:
            values[id_column] = Unreadable(f"{number!r}, where other ids may have been rounded to it")
    return rows


def _value(cell: Any) -> Any:
    """The value of a cell; text that is not UTF-8 with surrogates, as `text_lines` gives it."""
    try:
        return cell.as_py()
    except UnicodeDecodeError as error:
        text = cell.value if isinstance(cell, pa.DictionaryScalar) else cell
        if isinstance(text, pa.StringScalar | pa.LargeStringScalar):
            return bytes(text.as_buffer()).decode("utf-8", "surrogateescape")
        return Unreadable(str(error))
    except _UNREADABLE as error:
        return Unreadable(str(error))


def _batches(file: Any, columns: list[str]) -> Iterator[Any]:
    for group in range(file.num_row_groups):
        metadata = file.metadata.row_group(group)
        row_bytes = metadata.total_byte_size / max(1, metadata.num_rows)
        size = max(1, min(_MAX_BATCH_ROWS, int(_BATCH_BYTES / max(1.0, row_bytes))))
        yield from file.iter_batches(batch_size=size, row_groups=[group], columns=columns)
