"""A lone quote in a CSV swallows rows: each swallowed line is a row or a refusal, and legal titles stay rows."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysys.config.schema import Columns, TableCatalog
from raysys.errors import InputError
from raysys.pack.catalog import CatalogRow, catalog_files, delimited
from tests.catalogs import read_catalog

HEADER = "item_id,title,image,seller"


def read(folder: Path, *lines: str) -> list[CatalogRow]:
    (folder / "items.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    return read_catalog(TableCatalog(path=f"{folder}/items.csv"))


def outcome(rows: list[CatalogRow]) -> dict[int, str]:
    """Physical line -> title of a row, or the reason of a refusal."""
    return {
        int(row.source.rpartition(":")[2]): row.refusal.reason if row.refusal else row.title for row in rows
    }


def plain(*numbers: int) -> Iterator[str]:
    return (f"{number},cup {number},{number}.jpg,c1" for number in numbers)


def test_quote_that_is_not_closed_refuses_its_line_and_reads_all_others(tmp_path: Path) -> None:
    rows = read(tmp_path, *plain(1, 2), '3,"Lamp,3.jpg,c1', *plain(4, 5), "6,short", *plain(7))
    assert outcome(rows) == {
        2: "cup 1", 3: "cup 2", 4: "bad_line", 5: "cup 4", 6: "cup 5", 7: "bad_line", 8: "cup 7",
    }  # fmt: skip
    assert rows[2].refusal
    assert rows[2].refusal.detail == (
        "a quote opens in line 4 and is not closed before the end of line 8, so that each of the 5 lines is "
        'read as a row of its own; close the quote, or write "" for a quote inside a quoted cell'
    )
    assert rows[5].refusal
    assert rows[5].refusal.detail == (
        "the row has 2 cells, the header 4; line 4 opens a quote that is not closed before the end of line 8"
    )


def test_two_lone_quotes_make_no_row_of_the_lines_between_them(tmp_path: Path) -> None:
    rows = read(tmp_path, '1,"Lamp,1.jpg,c1', *plain(2, 3, 4), '5,Desk 5",5.jpg,c1', *plain(6))
    assert outcome(rows) == {
        2: "bad_line", 3: "cup 2", 4: "cup 3", 5: "cup 4", 6: "bad_line", 7: "cup 6",
    }  # fmt: skip
    assert rows[4].refusal
    assert rows[4].refusal.detail == (
        'the quote of line 2 ends here, not in its row; close the quote, or write "" for a quote inside a '
        "quoted cell"
    )


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        pytest.param(['1,"Lamp,1.jpg,c1', '2,Desk 5",2.jpg,c1'], "--", id="neighbours"),
        pytest.param(['1,"Lamp,1.jpg,c1', '2,Desk 5",2.jpg,"c1,c2"'], "--", id="comma behind the second"),
        pytest.param(['1,"Lamp, brass,1.jpg,c1', *plain(2), '3,5",3.jpg,c1'], "-+-", id="comma in the title"),
        pytest.param(['1,"Lamp,1.jpg,c1', *plain(2), '3,"Desk, white",3.jpg,c1'], "-++", id="quoted title next"),
        pytest.param(['1,"Lamp,1.jpg,c1', '2,"Desk,\nwhite",2.jpg,c1', *plain(3)], "-+ +", id="title over lines next"),
        pytest.param(['1,"Lamp,1.jpg,c1', '2,"Desk,2.jpg,c1', *plain(3)], "--+", id="two that open"),
        pytest.param(['1,"Lamp,1.jpg,c1', '2,"",2.jpg,c1', *plain(3)], "-++", id="empty quoted cell"),
        pytest.param(['1,"Lamp,1.jpg,c1', "", *plain(3)], "- +", id="blank line"),
        pytest.param([*plain(1), '2,"Lamp,2.jpg,c1'], "+-", id="last row"),
        pytest.param(['1,Lamp,1.jpg,"c1', *plain(2), '3,5,3.jpg,c"'], "-+-", id="last column"),
        pytest.param(['"1,Lamp,1.jpg,c1', *plain(2), '3",5,3.jpg,c'], "-+-", id="first column"),
        pytest.param(['1,"Desk,', 'white, 5" wide",1.jpg,c1', *plain(3)], "--+", id="rest of a title is no row"),
        pytest.param(['1,"Desk', 'white",1.jpg', *plain(3)], "--+", id="wrong number of cells"),
    ],
)  # fmt: skip
def test_every_line_is_a_row_or_refused(tmp_path: Path, lines: list[str], expected: str) -> None:
    result = outcome(read(tmp_path, *lines))
    signs = {number: "-" if title == "bad_line" else "+" for number, title in result.items()}
    assert signs == {number: sign for number, sign in enumerate(expected, 2) if sign != " "}


@pytest.mark.parametrize(
    "title",
    [
        "red\nlong",
        "Red, long\nwith a belt, new",
        "Red\n\n\nlong",
        "First,second\nthird,fourth",
        "One, two, three\nfour, five, six, seven\nand, a, b, c",
        'A ""new"" one,\nsize, 5"" or so',
        ",,,\n,,,,\nx",
    ],
)
def test_legal_title_over_several_lines_is_one_row(tmp_path: Path, title: str) -> None:
    rows = read(tmp_path, *plain(1), f'2,"{title}",2.jpg,c1', *plain(3))
    assert [row.title for row in rows] == ["cup 1", title.replace('""', '"'), "cup 3"]
    assert rows[2].source == f"{tmp_path}/items.csv:{4 + title.count(chr(10))}"


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ('item_id,"title,image\n1,a,a.jpg\n', 2),
        ('item_id,title,image,"note\n1,a,a.jpg,5"\n', 2),
        ('item_id,title,image,"note\n1,a,a.jpg,x\n2,b,b.jpg,5"\n', 3),
        ('item_id,title,"image', 1),
    ],
)
def test_quote_of_the_header_is_an_error(tmp_path: Path, text: str, last: int) -> None:
    (tmp_path / "items.csv").write_text(text)
    with pytest.raises(InputError) as caught:
        read_catalog(TableCatalog(path=f"{tmp_path}/items.csv"))
    assert str(caught.value) == (
        f"{tmp_path}/items.csv:1: a quote in the header is not closed before line {last}; close the quote, or "
        'write "" for a quote inside a quoted cell'
    )


def test_column_name_may_have_a_line_break(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text('item_id,title,image,"size\n(cm)"\n1,a,a.jpg,5\n')
    (row,) = read_catalog(TableCatalog(path=f"{tmp_path}/items.csv"))
    assert (row.title, row.source) == ("a", f"{tmp_path}/items.csv:3")


def test_unclosed_quote_of_a_long_file_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_MAX_RECORD_LINES", 1000)
    lines = [HEADER, '0,"Lamp,0.jpg,c1', *plain(*range(1, 20_000))]
    (tmp_path / "items.csv").write_text("\n".join(lines))
    section = TableCatalog(path=f"{tmp_path}/items.csv", columns=Columns())
    tracemalloc.start()
    num_rows = sum(row.refusal is None for row in catalog_files(section)[0].rows(section, None))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_rows == 19_999
    assert peak_bytes < 5 << 20


@pytest.mark.skipif("RAYSYS_CASES" not in os.environ, reason="RAYSYS_CASES names no folder of cases")
def test_case_of_a_lone_quote() -> None:
    rows = read_catalog(TableCatalog(path=f"{os.environ['RAYSYS_CASES']}/lone_quote/items.csv"))
    assert [row.refusal is None for row in rows] == [number != 49 for number in range(60)]
