"""A JSON Lines file becomes rows; a line that is not an object is refused and the others are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.config.schema import Columns, TableCatalog
from raysys.errors import InputError
from tests.catalogs import read_catalog


def write_table(folder: Path, *lines: str) -> TableCatalog:
    path = folder / "items.jsonl"
    path.write_text("\n".join(lines), encoding="utf-8", errors="surrogatepass")
    columns = Columns(attributes={"price": "integer", "used": "boolean", "size": "text"})
    return TableCatalog(path=str(path), columns=columns)


GOOD = '{"item_id": 7, "title": "red", "image": "a.jpg", "price": 12, "used": true, "size": 38.0}'


def test_values_are_converted_and_source_is_the_line(tmp_path: Path) -> None:
    first, second = read_catalog(
        write_table(tmp_path, GOOD, "", '{"item_id": "8", "title": null, "other": {}}')
    )
    assert (first.item_id, first.title, first.photo) == ("7", "red", f"{tmp_path}/a.jpg")
    assert first.attributes == {"price": 12, "used": True, "size": "38"}
    assert (second.item_id, second.title, second.photo) == ("8", "", "")
    assert second.attributes == {"price": None, "used": None, "size": None}
    assert second.source == f"{tmp_path}/items.jsonl:3"
    assert (first.refusal, second.refusal) == (None, None)


@pytest.mark.parametrize(
    ("line", "refusal"),
    [
        ("[1, 2]", ("bad_line", "the line should be a JSON object, got list")),
        ('{"item_id": ', ("bad_line", "the line is not JSON (Expecting value: line 1 column 12 (char 11))")),
        (GOOD.replace("12", '"12,5"'), ("bad_attribute", "attribute 'price' should be of type integer, got '12,5'")),
        (GOOD.replace("12", "12.5"), ("bad_attribute", "attribute 'price' should be of type integer, got 12.5")),
        (GOOD.replace("12", "1e400"), ("bad_attribute", "attribute 'price' should be of type integer, got inf")),
        (GOOD.replace("12", "9" * 19), ("bad_attribute", f"attribute 'price' should be of type integer, got {'9' * 19}")),
        (GOOD.replace("38.0", "[38]"), ("bad_attribute", "attribute 'size' should be of type text, got [38]")),
        (GOOD.replace("7", "[7]"), ("bad_item_id", "item id in column 'item_id' should be text, got [7]")),
        (GOOD.replace("7", r'"\ud800"'), ("bad_item_id", r"item id in column 'item_id' should be Unicode text, got '\ud800'")),
        (GOOD.replace("7", "1e16"), ("bad_item_id", "item id in column 'item_id' should be text or an exact number, got 1e+16; store ids as text or integers")),
        (GOOD.replace("7", "-Infinity"), ("bad_item_id", "item id in column 'item_id' should be text or an exact number, got -inf; store ids as text or integers")),
        (GOOD.replace('"red"', "1e999"), ("bad_title", "title in column 'title' should be text, got inf")),
        (GOOD.replace("12", "1" * 5000), ("bad_line", "the line is not JSON (Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits; use sys.set_int_max_str_digits() to increase the limit)")),
        (GOOD.replace('"title"', '"item_id": 8, "title"'), ("bad_line", "the object has a key twice (item_id); write each key once")),
        ('"red"', ("bad_line", "the line should be a JSON object, got str")),
        (GOOD + GOOD, ("bad_line", "the line is not JSON (Extra data: line 1 column 90 (char 89))")),
        (GOOD.replace('"a.jpg"', r'"\udcff.jpg"'), ("bad_image", r"image in column 'image' should be UTF-8 text, got b'\xff.jpg'")),
        (GOOD.replace('"a.jpg"', r'"\ud800.jpg"'), ("bad_image", r"image in column 'image' should be Unicode text, got '\ud800.jpg'")),
        (GOOD.replace('"red"', "true"), ("bad_title", "title in column 'title' should be text, got True")),
        (GOOD.replace('"a.jpg"', "5"), ("bad_image", "image in column 'image' should be a path, a URI or bytes, got 5")),
    ],
)  # fmt: skip
def test_invalid_value_refuses_its_row(tmp_path: Path, line: str, refusal: tuple[str, str]) -> None:
    before, row, after = read_catalog(write_table(tmp_path, GOOD, line, GOOD))
    assert row.refusal == refusal
    assert row.source == f"{tmp_path}/items.jsonl:2"
    assert (before.refusal, after.refusal) == (None, None)


@pytest.mark.parametrize(
    ("number", "item_id"),
    [
        ("7.0", "7"),
        ("7.5", "7.5"),
        ("9007199254740991.0", "9007199254740991"),
        ("9" * 40, "9" * 40),
        ("NaN", ""),
    ],
)
def test_number_as_item_id_keeps_its_value(tmp_path: Path, number: str, item_id: str) -> None:
    (row,) = read_catalog(write_table(tmp_path, GOOD.replace("7", number, 1)))
    assert (row.item_id, row.refusal) == (item_id, None)


def test_repeated_key_of_an_unused_object_does_not_matter(tmp_path: Path) -> None:
    (row,) = read_catalog(write_table(tmp_path, GOOD.replace("}", ', "other": {"a": 1, "a": 2}}')))
    assert row.refusal is None


def test_key_that_no_object_has_is_an_error(tmp_path: Path) -> None:
    section = write_table(
        tmp_path, '{"item_id": 7, "titel": "red"}', '{"image": "a.jpg", "price": 1, "used": 0, "size": ""}'
    )
    with pytest.raises(InputError) as caught:
        read_catalog(section)
    assert str(caught.value) == (
        f"{section.path}: no column 'title' (found: item_id, titel, image, price, used, size); "
        "set catalog.columns.title; did you mean 'titel'?"
    )


def test_text_that_is_not_utf8_refuses_its_row(tmp_path: Path) -> None:
    section = write_table(tmp_path, "")
    Path(section.path).write_bytes(f"{GOOD}\n{GOOD.replace('red', 'Mütze')}\n{GOOD}".encode("latin-1"))
    rows = read_catalog(section)
    assert [row.refusal for row in rows] == [
        None,
        ("bad_title", r"title in column 'title' should be UTF-8 text, got b'M\xfctze'"),
        None,
    ]
    assert (rows[1].item_id, rows[1].source) == ("7", f"{section.path}:2")
