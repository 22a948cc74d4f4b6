"""Databases that cannot be opened: one line that names the place, and never the password."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from raysys.errors import InputError
from raysys.store.change_log import ChangeLog


def error_of(url: str) -> str:
    with pytest.raises(InputError) as caught:
        ChangeLog(url, timeout_s=0.1)
    return str(caught.value)


def test_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"item_id,title\n" * 200)
    assert error_of(f"sqlite:///{path}") == (
        f"sqlite:///{path}: could not be opened (file is not a database); check store.url, and the permissions there"
    )
    assert path.read_bytes() == b"item_id,title\n" * 200


def test_folder_in_place_of_the_file_is_refused(tmp_path: Path) -> None:
    assert "could not be opened (unable to open database file); check" in error_of(f"sqlite:///{tmp_path}")


def test_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "choose another place" in error_of(f"sqlite:///{tmp_path}/file/store.db")


def test_missing_driver_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    assert error_of("postgresql://u:pw@db/shop") == (
        "postgresql://u@db/shop: PostgreSQL needs the driver psycopg; pip install 'raysys[postgres]'"
    )
