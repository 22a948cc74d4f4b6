"""Names that copying programs, other systems and users leave in a folder do not stop its listing."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from raysys import storage
from raysys.config.schema import AttributeSplit, FolderCatalog, FolderColumns, TableCatalog
from raysys.errors import InputError, MissingError
from raysys.pack.catalog import catalog_files, open_catalog

ROW = "item_id,title,image\n1,a,a.jpg\n"
IS_NOT_UTF8 = os.fsdecode(b"caf\xe9")


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(ROW)


def names(path: object) -> list[str]:
    return [file.uri.rpartition("/")[2] for file in catalog_files(TableCatalog(path=str(path)))]


@pytest.mark.parametrize("pattern", ["", "/*.csv", "/*/*.csv"])
def test_hidden_files_are_ignored_and_counted(
    tmp_path: Path, pattern: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(
        tmp_path,
        "a.csv",
        "b/b.csv",
        "._a.csv",
        ".DS_Store",
        "b/._b.csv",
        "__MACOSX/._a.csv",
        "__MACOSX/a.csv",
    )
    caplog.set_level(logging.INFO, "raysys")
    expected = {
        "": (["a.csv", "b.csv"], 5, ".DS_Store"),
        "/*.csv": (["a.csv"], 1, "._a.csv"),
        "/*/*.csv": (["b.csv"], 3, "__MACOSX/._a.csv"),
    }
    found, num_hidden, first = expected[pattern]
    assert names(f"{tmp_path}{pattern}") == found
    assert caplog.messages == [
        f"     pack  {tmp_path}{pattern}: {num_hidden} hidden files are ignored (first: {first})"
    ]


@pytest.mark.parametrize("place", [f"{IS_NOT_UTF8}.jpg", f"photos/{IS_NOT_UTF8}.jpg", f"{IS_NOT_UTF8}/a.jpg"])
def test_name_that_is_not_utf8_does_not_stop_the_listing(tmp_path: Path, place: str) -> None:
    write(tmp_path, "a.csv", "b/b.csv", place)
    assert names(tmp_path) == ["a.csv", "b.csv"]
    assert names(f"{tmp_path}/*.csv") == ["a.csv"]
    assert storage.list_files(str(tmp_path)) == dict.fromkeys(sorted(["a.csv", "b/b.csv", place]), len(ROW))


@pytest.mark.parametrize("name", [f"{IS_NOT_UTF8}.csv", f"{IS_NOT_UTF8}/a.csv"])
def test_table_whose_name_is_not_utf8_is_an_error(tmp_path: Path, name: str) -> None:
    write(tmp_path, "a.csv", name)
    with pytest.raises(InputError) as caught:
        names(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}/{name.replace(IS_NOT_UTF8, 'caf' + chr(92) + 'udce9')}: "
        "the name of the file is not UTF-8; rename it"
    )


@pytest.mark.parametrize("folder", ["{a,b}", "{0..999999999}", "{a", "a}", "[old]"])
def test_folder_with_signs_of_a_pattern_in_its_name_is_read(tmp_path: Path, folder: str) -> None:
    write(tmp_path, f"{folder}/a.csv", f"{folder}/b.csv")
    assert names(tmp_path / folder) == ["a.csv", "b.csv"]
    assert names(tmp_path / folder / "a*.csv") == ["a.csv"]
    assert names(tmp_path / folder / "b.csv") == ["b.csv"]


@pytest.mark.parametrize("pattern", ["{0..999999999}.csv", "{a.csv", "a}-*.csv", "[.csv"])
def test_braces_that_match_nothing_are_an_error(tmp_path: Path, pattern: str) -> None:
    write(tmp_path, "a.csv")
    with pytest.raises(MissingError, match="no such catalogue"):
        names(tmp_path / pattern)


@pytest.mark.parametrize("layout", ["", "train/"])
def test_photos_that_no_metadata_row_names_are_counted(
    tmp_path: Path, layout: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(
        tmp_path,
        *(f"{layout}{name}" for name in ("1.jpg", "2.JFIF", "3.jpe", "sub/4.png", "notes.txt", "._5.jpg")),
    )
    write(tmp_path, f"{layout}{IS_NOT_UTF8}.jpg", ".cache/x.jpg")
    (tmp_path / layout / "metadata.csv").write_text("file_name,text\n1.jpg,red\n./sub/4.png,blue\n9.jpg,x\n")
    section = FolderCatalog(path=str(tmp_path), columns=FolderColumns(item_id="file_name", title="text"))
    caplog.set_level(logging.INFO, "raysys")
    assert open_catalog(section, AttributeSplit()).num_rows == 3
    assert caplog.messages[-1] == (
        f"     pack  {tmp_path}: 3 photos are in no metadata row and are not packed "
        f"(first: {tmp_path}/{layout}2.JFIF)"
    )


def test_image_folder_whose_photos_are_all_named_has_no_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, "1.jpg")
    (tmp_path / "metadata.csv").write_text("file_name,text\n1.jpg,red\n")
    section = FolderCatalog(path=str(tmp_path), columns=FolderColumns(item_id="file_name", title="text"))
    caplog.set_level(logging.INFO, "raysys")
    open_catalog(section, AttributeSplit())
    assert not caplog.messages


@pytest.mark.skipif("RAYSYS_CASES" not in os.environ, reason="RAYSYS_CASES names no folder of cases")
def test_case(caplog: pytest.LogCaptureFixture) -> None:
    path = f"{os.environ['RAYSYS_CASES']}/hf_extra_photos/data"
    columns = FolderColumns(item_id="file_name", title="file_name")
    open_catalog(FolderCatalog(path=path, columns=columns), AttributeSplit())
    assert "15 photos are in no metadata row" in caplog.text
