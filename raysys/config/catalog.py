"""Settings of the catalogue: which listings there are, and which columns describe them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt

from raysys.config.section import Section, UriPath

AttributeType = Literal["text", "integer", "number", "boolean"]
TableFormat = Literal["csv", "tsv", "parquet", "jsonl"]


class DrawnCatalog(Section):
    """A synthetic catalogue that raysys draws, for the demo and for tests."""

    kind: Literal["drawn"] = "drawn"
    num_items: Annotated[int, Field(ge=50, le=10_000_000)] = 3000
    """Number of listings."""
    size_px: Annotated[int, Field(ge=32, le=1024)] = 96
    """Side length of the square photos, in pixels."""
    seed: NonNegativeInt = 7
    """Random seed. The same seed gives the same catalogue, byte for byte."""


class Columns(Section):
    """Names of the table's columns."""

    item_id: str = "item_id"
    """Column with the unique id of a listing."""
    title: str = "title"
    """Column with the title."""
    image: str = "image"
    """Column with the photo: a path relative to `catalog.images`, an absolute path, a URI (`s3://`, `gs://`,
    `https://`), or the encoded bytes (Parquet only: binary, or a struct of `bytes` and `path` as Hugging Face
    datasets write it)."""
    attributes: dict[str, AttributeType] = {}
    """Columns to keep as attributes, with their types. Attributes are used by filters, splits and
    evaluation."""


class FolderColumns(Columns):
    """Names of the columns of an image folder's metadata table."""

    image: str = "file_name"
    """Column with the photo: a path relative to the metadata file."""


class WebDatasetColumns(Section):
    """Names of the fields in the json of each sample."""

    item_id: str | None = None
    """Field with the unique id of a listing. Null: the sample's key, unique over all tars."""
    title: str | None = None
    """Field with the title. Null: `title`, `caption` or `text`, otherwise the txt."""
    group: str | None = None
    """Field that is equal for listings of the same thing, for example the `sha256` of img2dataset. Null: the
    photos are not read, so that only equal titles of one seller form a group."""
    attributes: dict[str, AttributeType] = {}
    """Fields to keep as attributes, with their types. Attributes are used by filters, splits and
    evaluation."""


class TableCatalog(Section):
    """Your catalogue as a table with one row per listing: CSV, TSV, Parquet or JSON Lines."""

    kind: Literal["table"] = "table"
    path: Annotated[str, UriPath()]
    """A file, a glob pattern (`items-*.parquet`) or a folder of files, as a local path or a URI. Text files
    are UTF-8 (with or without a byte order mark); CSV and TSV files start with a header line."""
    format: TableFormat | None = None
    """File format. Null: derive it from the file name (.csv, .tsv, .parquet, .jsonl; the text formats also
    with .gz)."""
    separator: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = None
    """Character between the cells of CSV and TSV files. Null: a first line `sep=;`, as Excel
    writes it, or else the header decides between comma, semicolon, tab and `|`."""
    images: Annotated[str | None, UriPath()] = None
    """Folder that relative photo paths start from. Null: the table's folder."""
    columns: Columns = Columns()


class FolderCatalog(Section):
    """Your catalogue as an image folder of Hugging Face datasets: photos and a metadata table."""

    kind: Literal["folder"] = "folder"
    path: Annotated[str, UriPath()]
    """The folder, as a local path or a URI. The folder itself, or each of its sub-folders `train`, `val` and
    `test`, contains metadata.csv, metadata.jsonl or metadata.parquet."""
    separator: Annotated[str, Field(pattern=r'^[^"\r\n]$')] | None = None
    """Character between the cells of metadata.csv. Null: a first line `sep=;`, or else the header decides
    between comma, semicolon, tab and `|`."""
    columns: FolderColumns = FolderColumns()


class WebDatasetCatalog(Section):
    """Your catalogue as a WebDataset, such as img2dataset writes it. Its tars stay where they are."""

    kind: Literal["webdataset"] = "webdataset"
    path: Annotated[str, UriPath()]
    """The tars: a range (`s3://bucket/{00000..00999}.tar`), a glob pattern (`shards/*.tar`), a tar, or a
    folder with tars, as a local path or a URI. They must stay where they are."""
    columns: WebDatasetColumns = WebDatasetColumns()
