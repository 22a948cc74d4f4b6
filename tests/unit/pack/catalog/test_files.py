"""A catalogue is a file, a glob or a folder; names decide which files are its tables and their format."""

from __future__ import annotations

import gzip
import pickle
from pathlib import Path

import pytest

from raysys.config.schema import Columns, FolderCatalog, FolderColumns, TableCatalog, TableFormat
from raysys.errors import InputError, MissingError
from raysys.pack.catalog import catalog_files
from tests.catalogs import read_catalog

HEADER = "item_id,title,image\n"
KNOWN_EXTENSIONS = ".csv, .tsv, .parquet, .jsonl, .ndjson (text also with .gz)"


def write(folder: Path, **files: str) -> None:
    """Write files; `__` in a name stands for a slash, `_` for a dot."""
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def names(path: str, kind: TableFormat | None = None) -> list[str]:
    return [Path(file.uri).name for file in catalog_files(TableCatalog(path=path, format=kind))]


def test_folder_lists_its_tables_in_order_and_no_other_files(tmp_path: Path) -> None:
    write(tmp_path, b_csv=HEADER, a_parquet="", notes_txt="", photos__1_jpg="", c__d_jsonl_gz="", _SUCCESS="")
    (tmp_path / "_metadata.csv").touch()
    assert names(str(tmp_path)) == ["a.parquet", "b.csv", "d.jsonl.gz"]
    assert [file.format for file in catalog_files(TableCatalog(path=str(tmp_path)))] == [
        "parquet",
        "csv",
        "jsonl",
    ]


def test_configured_format_selects_the_files_of_a_folder(tmp_path: Path) -> None:
    write(tmp_path, a_csv="", b_jsonl="", part0="", photo_jpg="")
    assert names(str(tmp_path), "csv") == ["a.csv", "part0"]


def test_star_of_a_glob_does_not_match_a_slash(tmp_path: Path) -> None:
    write(tmp_path, x1__items_csv="", x2__items_csv="", x2__deep__items_csv="", y__items_csv="")
    uris = [file.uri for file in catalog_files(TableCatalog(path=f"{tmp_path}/x*/*.csv"))]
    assert uris == [f"{tmp_path}/x1/items.csv", f"{tmp_path}/x2/items.csv"]


def test_existing_file_with_glob_characters_is_not_a_glob(tmp_path: Path) -> None:
    (tmp_path / "items[1].csv").touch()
    assert names(f"{tmp_path}/items[1].csv") == ["items[1].csv"]


def test_rows_of_several_files_are_concatenated(tmp_path: Path) -> None:
    write(tmp_path, a__a_csv=HEADER + "1,a,x.jpg\n", b_csv=HEADER + "2,b,x.jpg\n")
    rows = read_catalog(TableCatalog(path=str(tmp_path)))
    assert [(row.item_id, row.photo) for row in rows] == [
        ("1", f"{tmp_path}/a/x.jpg"),
        ("2", f"{tmp_path}/x.jpg"),
    ]


def test_gzip_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / "items.csv.gz"
    path.write_bytes(gzip.compress((HEADER + "1,a,x.jpg\n").encode()))
    (row,) = read_catalog(TableCatalog(path=str(path)))
    assert (row.item_id, row.source) == ("1", f"{path}:2")


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-12], lambda data: b"no" + data[2:]], ids=["cut", "other"]
)
def test_damaged_gz_is_an_error(tmp_path: Path, damage: "object") -> None:
    path = tmp_path / "items.csv.gz"
    assert callable(damage)
    path.write_bytes(damage(gzip.compress((HEADER + "1,a,x.jpg\n" * 1000).encode())))
    with pytest.raises(InputError) as caught:
        read_catalog(TableCatalog(path=str(path)))
    assert str(caught.value).startswith(f"{path}: not a readable .gz (")


def test_configured_format_overrides_the_name(tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_text("item_id\ttitle\timage\n1\ta\tx.jpg\n")
    (row,) = read_catalog(TableCatalog(path=f"{tmp_path}/items.txt", format="tsv"))
    assert row.item_id == "1"


def test_file_of_an_unknown_type_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "items.xlsx"
    path.touch()
    with pytest.raises(InputError) as caught:
        catalog_files(TableCatalog(path=str(path)))
    assert str(caught.value) == (
        f"{path}: unknown file type; use one of {KNOWN_EXTENSIONS} in its name, or set catalog.format"
    )


@pytest.mark.parametrize("name", ["nothing.csv", "nothing-*.csv", "empty"])
def test_missing_catalogue_is_an_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingError) as caught:
        catalog_files(TableCatalog(path=f"{tmp_path}/{name}"))
    assert str(caught.value) == (
        f"{tmp_path}/{name}: no such catalogue; set catalog.path to a file, a glob or a folder of {KNOWN_EXTENSIONS}"
    )


def test_relative_paths_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, items_csv=HEADER + "1,a,x.jpg\n")
    (row,) = read_catalog(TableCatalog(path="items.csv", images="photos"))
    assert row.photo == f"{tmp_path}/photos/x.jpg"


def test_catalog_file_can_be_pickled(tmp_path: Path) -> None:
    write(tmp_path, items_csv=HEADER)
    (file,) = catalog_files(TableCatalog(path=str(tmp_path)))
    assert pickle.loads(pickle.dumps(file)) == file


METADATA_HEADER = "file_name,item_id,title\n"


def test_subfolders_of_an_image_folder_name_the_splits(tmp_path: Path) -> None:
    write(
        tmp_path,
        train__metadata_csv=METADATA_HEADER + "1.jpg,a,red\n",
        validation__metadata_csv=METADATA_HEADER + "2.jpg,b,blue\n",
    )
    rows = read_catalog(FolderCatalog(path=str(tmp_path)), "split")
    assert [(row.item_id, row.photo, row.split) for row in rows] == [
        ("a", f"{tmp_path}/train/1.jpg", "train"),
        ("b", f"{tmp_path}/validation/2.jpg", "val"),
    ]
    assert {row.split for row in read_catalog(FolderCatalog(path=str(tmp_path)))} == {None}


def test_split_column_overrides_the_folder(tmp_path: Path) -> None:
    write(tmp_path, train__metadata_csv="file_name,item_id,title,split\n1.jpg,a,red,test\n")
    (row,) = read_catalog(FolderCatalog(path=str(tmp_path)), "split")
    assert row.split == "test"


def test_flat_image_folder_needs_the_split_column(tmp_path: Path) -> None:
    write(tmp_path, metadata_jsonl='{"file_name": "1.jpg", "item_id": "a", "title": "red", "price": 7}\n')
    section = FolderCatalog(path=str(tmp_path), columns=FolderColumns(attributes={"price": "integer"}))
    (row,) = read_catalog(section)
    assert (row.item_id, row.title, row.photo, row.attributes) == (
        "a",
        "red",
        f"{tmp_path}/1.jpg",
        {"price": 7},
    )
    with pytest.raises(InputError, match="no column 'split'"):
        read_catalog(section, "split")


def test_file_name_may_be_the_item_id(tmp_path: Path) -> None:
    write(tmp_path, metadata_csv="file_name,text\n1.jpg,red\n")
    section = FolderCatalog(path=str(tmp_path), columns=FolderColumns(item_id="file_name", title="text"))
    (row,) = read_catalog(section)
    assert (row.item_id, row.title) == ("1.jpg", "red")


def test_image_folder_without_metadata_is_an_error(tmp_path: Path) -> None:
    write(tmp_path, train__1_jpg="")
    with pytest.raises(MissingError) as caught:
        catalog_files(FolderCatalog(path=str(tmp_path)))
    assert str(caught.value) == (
        f"{tmp_path}: no metadata.csv, metadata.jsonl, metadata.parquet in the folder or its sub-folders, "
        "so its photos have no titles; write one with file_name, an id and a title"
    )


def test_two_metadata_tables_of_one_folder_are_an_error(tmp_path: Path) -> None:
    write(tmp_path, metadata_csv=METADATA_HEADER, metadata_jsonl="")
    with pytest.raises(InputError) as caught:
        catalog_files(FolderCatalog(path=str(tmp_path)))
    assert str(caught.value) == (
        f"{tmp_path}: metadata.csv and metadata.jsonl describe the same photos; keep one of them"
    )


def test_missing_image_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingError) as caught:
        catalog_files(FolderCatalog(path=f"{tmp_path}/photos", columns=FolderColumns(title="text")))
    assert str(caught.value) == f"{tmp_path}/photos: no such folder; set catalog.path to an image folder"


def test_default_photo_column_differs_between_table_and_folder() -> None:
    assert (Columns().image, FolderColumns().image) == ("image", "file_name")
