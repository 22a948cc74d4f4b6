"""CSV with other separators, line ends and encodings is read, or the error says what was found."""

from __future__ import annotations

import os
from pathlib import Path

import pydantic
import pytest

from raysys.config.schema import FolderCatalog, FolderColumns, TableCatalog
from raysys.errors import InputError
from tests.catalogs import read_catalog

LINES = ["item_id,title,image", '1,"red; big | new",a.jpg', "2,blue,b.jpg"]


def read(folder: Path, data: bytes, name: str = "items.csv", separator: str | None = None) -> list[str]:
    (folder / name).write_bytes(data)
    rows = read_catalog(TableCatalog(path=f"{folder}/{name}", separator=separator))
    assert all(row.refusal is None for row in rows)
    return [f"{row.source.rpartition(':')[2]} {row.title}" for row in rows]


@pytest.mark.parametrize("name", ["items.csv", "items.tsv"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
def test_header_decides_the_separator(tmp_path: Path, separator: str, name: str) -> None:
    text = "\n".join(LINES).replace(",", separator)
    assert read(tmp_path, text.encode(), name) == ["2 red; big | new", "3 blue"]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_line_ends_and_byte_order_mark_are_read(tmp_path: Path, end: str, mark: bytes) -> None:
    assert read(tmp_path, mark + end.join(LINES).encode()) == ["2 red; big | new", "3 blue"]
    assert read(tmp_path, mark + end.join([*LINES, ""]).encode()) == ["2 red; big | new", "3 blue"]


def test_long_file_with_cr_keeps_its_line_numbers(tmp_path: Path) -> None:
    title = "red-" * 30  # 2.5 MB: more than two reads of 1 MB
    rows = read(tmp_path, b"item_id,title,image\r" + f"1,{title},a.jpg\r".encode() * 20_000)
    assert len(rows) == 20_000
    assert rows[-1] == f"20001 {title}"


def test_cr_inside_a_title_is_no_line_end(tmp_path: Path) -> None:
    assert read(tmp_path, b'item_id,title,image\n1,"red\rlong",a.jpg\n2,b,b.jpg\n') == ["2 red\rlong", "3 b"]


def test_blank_lines_before_the_header_are_counted(tmp_path: Path) -> None:
    assert read(tmp_path, b"\n\nitem_id;title;image\n1;red;a.jpg\n") == ["4 red"]


def test_header_with_other_separators_in_its_names_is_split_at_the_wanted_names(tmp_path: Path) -> None:
    assert read(tmp_path, b"item_id,title,image,a;b;c;d;e\n1,red,a.jpg,x\n") == ["2 red"]


@pytest.mark.parametrize(("mark", "end"), [(b"", "\n"), (b"\xef\xbb\xbf", "\r\n"), (b"", "\r")])
@pytest.mark.parametrize("line", ["sep={}", "SEP={}", '"sep={}"'])
@pytest.mark.parametrize("separator", [";", ",", "\t", "|", "^"])
def test_first_line_of_excel_states_the_separator(
    tmp_path: Path, separator: str, line: str, mark: bytes, end: str
) -> None:
    text = end.join([line.format(separator), *(text.replace(",", separator) for text in LINES)])
    assert read(tmp_path, mark + text.encode()) == ["3 red; big | new", "4 blue"]


@pytest.mark.parametrize(
    ("text", "separator", "rows"),
    [
        ("\nsep=;\n\nitem_id;title;image\n1;red;a.jpg\n", None, ["5 red"]),
        ("sep=;\nitem_id;title;image\n1;sep=,;a.jpg\n", None, ["3 sep=,"]),
        ("sep=;\nitem_id,title,image\n1,red,a.jpg\n", ",", ["3 red"]),  # catalog.separator has the last word
        ("item_id,title,image\n1,sep=;,a.jpg\n", None, ["2 sep=;"]),
        ('sep=;\nitem_id;title;image\n1;"red\nlong";a.jpg\n2;b;b.jpg\n', None, ["3 red\nlong", "5 b"]),
    ],
)
def test_first_line_of_excel_is_counted(
    tmp_path: Path, text: str, separator: str | None, rows: list[str]
) -> None:
    assert read(tmp_path, text.encode(), separator=separator) == rows


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("sep=;;\n", "sep=, , "),
        ("sep=\n", "sep="),
        ("sep=;\n", "none"),
        ("sep=;\nitem_id,title,image\n", "item_id,title,image"),
    ],
)
def test_other_first_lines_are_the_header(tmp_path: Path, text: str, found: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, text.encode())
    assert f"(found: {found});" in str(caught.value)


def test_separator_can_be_set(tmp_path: Path) -> None:
    assert read(tmp_path, b"item_id^title^image\n1^red,blue^a.jpg\n", separator="^") == ["2 red,blue"]
    with pytest.raises(InputError) as caught:
        read(tmp_path, b"item_id;title;image\n1;red;a.jpg\n", separator=",")
    assert str(caught.value).endswith(
        "no column 'item_id' (found: item_id;title;image); set catalog.columns.item_id"
    )


@pytest.mark.parametrize("separator", ["", "::", '"', "\n"])
def test_separator_is_one_character(separator: str) -> None:
    with pytest.raises(pydantic.ValidationError, match="separator"):
        TableCatalog(path="items.csv", separator=separator)


def test_names_that_fit_no_column_are_shown_split(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, b"sku;name;photo\x1b[2J\n1;red;a.jpg\n")
    assert str(caught.value) == (
        f"{tmp_path}/items.csv: no column 'item_id' (found: sku, name, photo\x1b[2J); set catalog.columns.item_id"
    )


def test_metadata_of_an_image_folder_may_have_semicolons(tmp_path: Path) -> None:
    (tmp_path / "metadata.csv").write_text("file_name;text\n1.jpg;red, blue\n")
    columns = FolderColumns(item_id="file_name", title="text")
    (row,) = read_catalog(FolderCatalog(path=str(tmp_path), columns=columns))
    assert row.title == "red, blue"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("a,b\n".encode("utf-16"), "UTF-16, not UTF-8 text; save the table as UTF-8"),
        ("a,b\n".encode("utf-16-be"), "zero bytes in the first line (UTF-16 or binary), not UTF-8 text; save the table as UTF-8"),
        (b"\x1f\x8b\x08\x00", "a gzip file, not UTF-8 text; add .gz to its name"),
        (b"PAR1\x15\x04", "a Parquet file, not UTF-8 text; set catalog.format to parquet"),
        (b"PK\x03\x04\x14", "a zip or Excel file, not UTF-8 text; extract the table, or save it as CSV"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("name", ["items.csv", "items.jsonl"])
def test_file_that_is_not_utf8_text_is_named(tmp_path: Path, data: bytes, message: str, name: str) -> None:
    with pytest.raises(InputError) as caught:
        read(tmp_path, data, name)
    assert str(caught.value) == f"{tmp_path}/{name}: {message}"


@pytest.mark.skipif("RAYSYS_CASES" not in os.environ, reason="RAYSYS_CASES names no folder of cases")
@pytest.mark.parametrize(("name", "refused"), [("semicolon", []), ("cr_only", ["9", "21"])])
def test_case(name: str, refused: list[str]) -> None:
    rows = read_catalog(TableCatalog(path=f"{os.environ['RAYSYS_CASES']}/{name}/items.csv"))
    assert len(rows) == 20
    # Two lines of cr_only have commas in titles without quotes.
    assert [row.source.rpartition(":")[2] for row in rows if row.refusal] == refused
