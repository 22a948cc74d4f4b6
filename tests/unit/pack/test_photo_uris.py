"""A cell that is no address costs its row: nothing is asked of a file system, and no other photo is affected."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from raysys import storage
from raysys.pack.photo_uris import fault_of, stat_photos
from tests.unit.pack.small_catalogue import jpeg, open_with_specs, pack, read_ledger, write_catalogue

BAD_CELLS = {
    "HTTPS://img.example.com/a.jpg": ("not_allowed_host", "host 'img.example.com' is not allowed"),
    "https://[::1/a.jpg": ("bad_image", "not a URL"),
    "hf://datasets/x/y.jpg": ("bad_image", "its scheme is unknown; use a path, s3://"),
    "S3://bucket/a.jpg": ("bad_image", "its scheme is unknown"),
    "s3:/x": ("missing_image", "no such file"),
    "s3:///x": ("bad_image", "it names no bucket and file"),
    "s3://bucket": ("bad_image", "it names no bucket and file"),
    "gs://": ("bad_image", "it names no bucket and file"),
    "file:///data/my photos/a.jpg": ("bad_image", "not a valid file:// URI; write a path"),
    "file://host/a.jpg": ("bad_image", "not a valid file:// URI"),
    "a\0b.jpg": ("bad_image", "contains a NUL character"),
    "a\nb\x1b[31m.jpg": ("missing_image", "a\\nb\\x1b[31m.jpg"),
    "n" * 256: ("bad_image", "a name of more than 255 bytes"),
    "é" * 128: ("bad_image", "a name of more than 255 bytes"),
    "folder/" * 700: ("bad_image", "or a path of 4095"),
    "data:image/jpeg;base64," + "QUJD" * 20_000: ("bad_image", "a data URI is not an address"),
    "folder": ("bad_image", "a folder, not a file; name a photo"),
    "pipe": ("bad_image", "a device, pipe or socket, not a file"),
    "/dev/zero": ("bad_image", "a device, pipe or socket, not a file"),
    "red.jpg/a.jpg": ("missing_image", "no such file"),
    "loop": ("unreachable", "cannot be read"),
    "empty.jpg": ("not_an_image", "photo"),
}


@pytest.fixture
def catalogue_folder(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "empty.jpg").touch()
    return tmp_path


def test_every_bad_cell_costs_only_its_row_and_names_its_line(catalogue_folder: Path) -> None:
    cells = [cell for cell in BAD_CELLS if "\0" not in cell and "\n" not in cell]  # csv: one line a row
    rows = [{"item_id": f"bad{number}", "image": cell} for number, cell in enumerate(cells)]
    config = write_catalogue(catalogue_folder, [*rows, {"item_id": "good"}])
    manifest = pack(config)["train"]
    assert (manifest.num_items, manifest.num_refused) == (1, len(cells))
    for number, (cell, row) in enumerate(zip(cells, read_ledger(config), strict=True)):
        reason, words = BAD_CELLS[cell]
        assert (row["reason"], row["source"]) == (reason, f"{catalogue_folder}/items.csv:{number + 2}")
        assert words in row["detail"]
        assert len(row["detail"]) <= 300
        assert row["detail"].isprintable()


@pytest.mark.parametrize("cell", ["a\0b.jpg", "a\nb\x1b[31m.jpg"])
def test_cell_with_control_characters_costs_only_its_row(tmp_path: Path, cell: str) -> None:
    config = write_catalogue(tmp_path, [{"item_id": "bad", "image": cell}, {"item_id": "good"}])
    manifest = pack(config)["train"]
    assert (manifest.num_items, manifest.num_refused) == (1, 1)
    (row,) = read_ledger(config)
    assert (row["reason"], BAD_CELLS[cell][1] in row["detail"]) == (BAD_CELLS[cell][0], True)


def test_exception_that_no_one_foresaw_costs_only_its_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(uri: str) -> str | None:
        if uri.endswith("odd.jpg"):
            raise ZeroDivisionError("odd")
        return fault_of(uri)

    monkeypatch.setattr("raysys.pack.fetch.fault_of", fail)
    config = write_catalogue(tmp_path, [{"item_id": "bad", "image": "odd.jpg"}, {"item_id": "good"}])
    assert pack(config)["train"].num_items == 1
    (row,) = read_ledger(config)
    assert row["detail"] == "the photo cannot be used (ZeroDivisionError: odd)"


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every folder")
def test_closed_folder_is_named_by_its_own_row(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "a.jpg").write_bytes(jpeg())
    closed.chmod(0)
    try:
        rows = [{"item_id": "good"}, {"item_id": "bad", "image": "closed/a.jpg"}]
        config = write_catalogue(tmp_path, rows)
        assert pack(config)["train"].num_items == 1
    finally:
        closed.chmod(stat.S_IRWXU)
    (row,) = read_ledger(config)
    assert (row["reason"], row["source"]) == ("unreachable", f"{tmp_path}/items.csv:3")
    assert f"{closed}/a.jpg" in row["detail"]


def test_photos_are_looked_up_one_by_one_only_if_one_of_them_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg())
    good, odd = str(tmp_path / "a.jpg"), str(tmp_path / "odd")
    asked: list[list[str]] = []
    look_up = storage.stat_files

    def stat_files(uris: list[str]) -> list[tuple[int, int]]:
        asked.append(uris)
        if odd in uris:
            raise ValueError("odd")
        return look_up(uris)

    monkeypatch.setattr(storage, "stat_files", stat_files)
    stats = stat_photos([good, odd, "", "hf://x/y", "HTTPS://x/y", "\0"])
    assert stats == {good: look_up([good])[0], odd: (-1, 0)}
    assert asked == [[good, odd], [good], [odd]]


def test_bad_cells_leave_the_fingerprint_of_the_catalogue_stable(catalogue_folder: Path) -> None:
    config = write_catalogue(catalogue_folder, [{"item_id": "a", "image": "hf://x/y"}, {"item_id": "b"}])
    first = open_with_specs(config)[0].entry
    assert open_with_specs(config)[0].entry == first
    (catalogue_folder / "red.jpg").write_bytes(jpeg("blue"))
    assert open_with_specs(config)[0].entry != first
