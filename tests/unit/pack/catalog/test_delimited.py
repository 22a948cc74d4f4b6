"""A CSV or TSV becomes typed rows with their lines; a malformed row is refused and the others are read."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from raysys.config.schema import AttributeSplit, AttributeType, Columns, TableCatalog
from raysys.errors import InputError
from raysys.pack.catalog import CatalogRow, Refusal, catalog_files, open_catalog
from tests.catalogs import read_catalog


def write_table(folder: Path, text: str | bytes, columns: Columns | None = None) -> TableCatalog:
    path = folder / "items.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return TableCatalog(path=str(path), columns=columns or Columns())


def with_attributes(**kinds: AttributeType) -> Columns:
    return Columns(attributes=kinds)


def test_columns_are_mapped_by_name_in_any_order(tmp_path: Path) -> None:
    columns = Columns(item_id="sku", title="name", image="photo", attributes={"shop": "text"})
    section = write_table(tmp_path, "photo,shop,unused,name,sku\np/1.jpg,Anna,x,Red dress,7\n", columns)
    assert read_catalog(section, split_column="unused") == [
        CatalogRow("7", "Red dress", f"{tmp_path}/p/1.jpg", {"shop": "Anna"}, "x", f"{tmp_path}/items.csv:2")
    ]


def test_attributes_have_their_types_and_an_empty_cell_is_none(tmp_path: Path) -> None:
    columns = with_attributes(price="integer", weight="number", used="boolean", size="text")
    text = "item_id,title,image,price,weight,used,size\n1,a,a.jpg,1200,0.5,True,7\n2,b,b.jpg,,,0,\n"
    first, second = read_catalog(write_table(tmp_path, text, columns))
    assert first.attributes == {"price": 1200, "weight": 0.5, "used": True, "size": "7"}
    assert second.attributes == {"price": None, "weight": None, "used": False, "size": None}
    assert isinstance(first.attributes["price"], int)


def test_id_of_digits_keeps_its_leading_zeros(tmp_path: Path) -> None:
    rows = read_catalog(write_table(tmp_path, "item_id,title,image\n007,a,a.jpg\n 08 ,b,b.jpg\n"))
    assert [row.item_id for row in rows] == ["007", "08"]


def test_null_words_of_other_readers_stay_text(tmp_path: Path) -> None:
    rows = read_catalog(write_table(tmp_path, "item_id,title,image\nNA,null,a.jpg\n"))
    assert (rows[0].item_id, rows[0].title) == ("NA", "null")


def test_byte_order_mark_is_removed(tmp_path: Path) -> None:
    rows = read_catalog(write_table(tmp_path, b"\xef\xbb\xbfitem_id,title,image\r\n1,a,a.jpg\r\n"))
    assert (rows[0].item_id, rows[0].photo) == ("1", f"{tmp_path}/a.jpg")


def test_quoted_title_may_hold_newlines_and_commas(tmp_path: Path) -> None:
    rows = read_catalog(write_table(tmp_path, 'item_id,title,image\n1,"red,\nlong",a.jpg\n2,b,b.jpg\n'))
    assert [row.title for row in rows] == ["red,\nlong", "b"]


def test_photo_may_be_relative_to_the_folder_absolute_or_a_uri(tmp_path: Path) -> None:
    text = "item_id,title,image\n1,a,a.jpg\n2,b,/photos/b.jpg\n3,c,s3://shop/c.jpg\n4,d,\n"
    section = write_table(tmp_path, text).model_copy(update={"images": "s3://bucket/photos/"})
    uris = [row.photo for row in read_catalog(section)]
    assert uris == ["s3://bucket/photos/a.jpg", "/photos/b.jpg", "s3://shop/c.jpg", ""]


def test_missing_column_is_an_error_with_the_existing_columns_and_a_suggestion(tmp_path: Path) -> None:
    section = write_table(tmp_path, "item_id,titel,image\n1,a,a.jpg\n")
    with pytest.raises(InputError) as caught:
        read_catalog(section)
    assert str(caught.value) == (
        f"{section.path}: no column 'title' (found: item_id, titel, image); "
        "set catalog.columns.title; did you mean 'titel'?"
    )


@pytest.mark.parametrize(
    ("columns", "split_column", "message"),
    [
        (with_attributes(colour="text"), None, "no column 'colour' (found: item_id, title, image); rename or remove catalog.columns.attributes.colour"),
        (Columns(), "split", "no column 'split' (found: item_id, title, image); set pack.split.column"),
    ],
)  # fmt: skip
def test_missing_column_error_names_the_setting(
    tmp_path: Path, columns: Columns, split_column: str | None, message: str
) -> None:
    section = write_table(tmp_path, "item_id,title,image\n1,a,a.jpg\n", columns)
    with pytest.raises(InputError) as caught:
        read_catalog(section, split_column)
    assert str(caught.value) == f"{section.path}: {message}"


@pytest.mark.parametrize(("kind", "value"), [("integer", "cheap"), ("number", "1,5"), ("boolean", "perhaps")])
def test_value_of_another_type_refuses_its_row_only(tmp_path: Path, kind: AttributeType, value: str) -> None:
    text = f'item_id,title,image,price\n1,a,a.jpg,1\n2,b,b.jpg,"{value}"\n'
    first, second = read_catalog(write_table(tmp_path, text, with_attributes(price=kind)))
    assert first.refusal is None
    assert second.refusal == Refusal(
        "bad_attribute",
        f"attribute 'price' should be of type {kind}, got '{value}'",
    )
    assert (second.item_id, second.source) == ("2", f"{tmp_path}/items.csv:3")


def test_catalogue_with_only_a_header_is_an_error(tmp_path: Path) -> None:
    section = write_table(tmp_path, "item_id,title,image\n")
    message = f"{section.path}: the catalogue is empty; it needs at least one row"
    with pytest.raises(InputError, match=message):
        open_catalog(section, AttributeSplit())


def test_empty_file_has_no_columns(tmp_path: Path) -> None:
    section = write_table(tmp_path, "")
    with pytest.raises(InputError) as caught:
        read_catalog(section)
    assert (
        str(caught.value) == f"{section.path}: no column 'item_id' (found: none); set catalog.columns.item_id"
    )


def test_source_is_the_physical_line_after_quoted_newlines_and_blank_lines(tmp_path: Path) -> None:
    text = 'item_id,title,image\r\n\r\n1,"red,\r\nlong",a.jpg\r\n\r\n\r\n2,b,b.jpg\r\n3,5" heel,c.jpg\r\n4,d,d.jpg'
    #        line 1              2     3           4             5     6     7             8                 9
    rows = read_catalog(write_table(tmp_path, text))
    assert [row.source.rpartition(":")[2] for row in rows] == ["3", "7", "8", "9"]
    assert rows[2].title == '5" heel'


@pytest.mark.parametrize(
    ("line", "detail"),
    [
        ("2,b", "the row has 2 cells, the header 3"),
        ("2,b,b.jpg,more", "the row has 4 cells, the header 3"),
        ('2,"b"b,b.jpg', "the row cannot be read (',' expected after '\"')"),
    ],
)
def test_row_with_a_wrong_number_of_cells_is_refused_and_the_next_is_read(
    tmp_path: Path, line: str, detail: str
) -> None:
    rows = read_catalog(write_table(tmp_path, f"item_id,title,image\n1,a,a.jpg\n{line}\n3,c,c.jpg\n"))
    assert [row.item_id for row in rows] == ["1", "", "3"]
    assert rows[1].refusal == Refusal("bad_line", detail)
    assert rows[1].source == f"{tmp_path}/items.csv:3"


def test_unclosed_quote_refuses_its_row(tmp_path: Path) -> None:
    rows = read_catalog(write_table(tmp_path, 'item_id,title,image\n1,a,a.jpg\n2,"b,b.jpg\n'))
    assert [row.item_id for row in rows] == ["1", ""]
    assert rows[1].refusal == Refusal("bad_line", "the row cannot be read (unexpected end of data)")


def test_text_that_is_not_utf8_refuses_its_row(tmp_path: Path) -> None:
    text = "item_id,title,image,unused\n1,a,a.jpg,x\n2,Mütze,b.jpg,x\n3,c,c.jpg,\xfc\n4,d,ü.jpg,x\n"
    rows = read_catalog(write_table(tmp_path, text.encode("latin-1")))
    assert [row.item_id for row in rows] == ["1", "2", "3", "4"]
    assert [row.refusal for row in rows] == [
        None,
        Refusal("bad_title", r"title in column 'title' should be UTF-8 text, got b'M\xfctze'"),
        None,
        Refusal("bad_image", r"image in column 'image' should be UTF-8 text, got b'\xfc.jpg'"),
    ]


def test_header_that_is_not_utf8_is_an_error(tmp_path: Path) -> None:
    section = write_table(tmp_path, "item_id,title,image,größe\n1,a,a.jpg,7\n".encode("latin-1"))
    with pytest.raises(InputError) as caught:
        read_catalog(section)
    assert str(caught.value) == f"{section.path}:1: the header is not UTF-8 text; save the table as UTF-8"


def test_repeated_column_is_an_error(tmp_path: Path) -> None:
    section = write_table(tmp_path, "item_id,title,image,title\n1,a,a.jpg,b\n")
    with pytest.raises(InputError) as caught:
        read_catalog(section)
    assert str(caught.value) == f"{section.path}: 2 columns 'title'; rename all but one"


def test_tsv_is_separated_by_tabs(tmp_path: Path) -> None:
    (tmp_path / "items.tsv").write_text("item_id\ttitle\timage\n1\tred, long\ta.jpg\n")
    (row,) = read_catalog(TableCatalog(path=f"{tmp_path}/items.tsv"))
    assert (row.title, row.source) == ("red, long", f"{tmp_path}/items.tsv:2")


def test_rows_are_streamed(tmp_path: Path) -> None:
    section = write_table(tmp_path, "item_id,title,image\n" + "1,a,a.jpg\n" * 30_000 + "2,\xff")
    rows = catalog_files(section)[0].rows(section, None)
    tracemalloc.start()
    for _ in range(20_000):
        next(rows)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 4 << 20  # all rows as objects take more than 10 MB
