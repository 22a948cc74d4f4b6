"""The fingerprint of a catalogue changes with the values of its rows and with the photos they name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raysys.config.schema import AttributeSplit, TableCatalog
from raysys.errors import InputError
from raysys.pack.catalog import Catalog, fingerprint, open_catalog


def open_csv(folder: Path, *lines: str) -> Catalog:
    (folder / "items.csv").write_text("\n".join(["item_id,title,image", *lines]) + "\n")
    return open_catalog(TableCatalog(path=str(folder / "items.csv")), AttributeSplit())


def test_rows_are_counted_and_equal_rows_have_equal_fingerprints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fingerprint, "_BATCH_ROWS", 2)
    lines = ["a,cup,a.jpg", "b,cup,b.jpg", "c,cup,https://example.com/c.jpg", "d,cup,"]
    assert open_csv(tmp_path, *lines) == open_csv(tmp_path, *lines)
    assert open_csv(tmp_path, *lines).num_rows == 4
    assert open_csv(tmp_path, *lines).entry.uri == f"{tmp_path}/items.csv"


def test_changed_row_or_photo_changes_the_fingerprint(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"one")
    os.utime(tmp_path / "a.jpg", (1, 1))
    fingerprints = [
        open_csv(tmp_path, "a,cup,a.jpg").entry.fingerprint,
        open_csv(tmp_path, "a,mug,a.jpg").entry.fingerprint,
    ]
    (tmp_path / "a.jpg").write_bytes(b"two")
    os.utime(tmp_path / "a.jpg", (2, 2))
    fingerprints.append(open_csv(tmp_path, "a,cup,a.jpg").entry.fingerprint)
    (tmp_path / "a.jpg").unlink()
    fingerprints.append(open_csv(tmp_path, "a,cup,a.jpg").entry.fingerprint)
    assert len(set(fingerprints)) == 4


def test_empty_catalogue_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        open_csv(tmp_path)
    assert str(caught.value) == f"{tmp_path}/items.csv: the catalogue is empty; it needs at least one row"
