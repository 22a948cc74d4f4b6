"""A catalogue's fingerprint changes with what its rows say and with the photos they name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from raysys.config.schema import TableCatalog
from raysys.errors import InputError
from raysys.pack import fingerprint as module
from raysys.pack.catalog import sources
from raysys.pack.fingerprint import Counted, fingerprint


def found(folder: Path, *lines: str) -> Counted:
    (folder / "items.csv").write_text("\n".join(["item_id,title,image", *lines]) + "\n")
    section = TableCatalog(path=str(folder / "items.csv"))
    return fingerprint(section, sources(section))


def test_rows_are_counted_and_the_same_ones_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)
    lines = ["a,cup,a.jpg", "b,cup,b.jpg", "c,cup,https://example.com/c.jpg", "d,cup,"]
    assert found(tmp_path, *lines) == found(tmp_path, *lines)
    assert found(tmp_path, *lines).num_rows == 4
    assert found(tmp_path, *lines).entry.uri == f"{tmp_path}/items.csv"


def test_a_changed_row_or_photo_changes_it(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"one")
    os.utime(tmp_path / "a.jpg", (1, 1))
    entries = [
        found(tmp_path, "a,cup,a.jpg").entry.fingerprint,
        found(tmp_path, "a,mug,a.jpg").entry.fingerprint,
    ]
    (tmp_path / "a.jpg").write_bytes(b"two")
    os.utime(tmp_path / "a.jpg", (2, 2))
    entries.append(found(tmp_path, "a,cup,a.jpg").entry.fingerprint)
    (tmp_path / "a.jpg").unlink()
    entries.append(found(tmp_path, "a,cup,a.jpg").entry.fingerprint)
    assert len(set(entries)) == 4


def test_an_empty_catalogue_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        found(tmp_path)
    assert str(caught.value) == (f"{tmp_path}/items.csv: the catalogue is empty; it needs at least one row")
