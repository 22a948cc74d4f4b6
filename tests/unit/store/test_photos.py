"""Photos of changed items: files named by their content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from raysys.errors import InputError
from raysys.store.changes import PhotoFile
from raysys.store.photos import keep_photo


def test_photo_is_a_file_named_by_its_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    digest = hashlib.sha256(b"photo").hexdigest()
    path = tmp_path / "root" / "photos" / digest[:2] / digest
    assert keep_photo("root", b"photo") == PhotoFile(str(path), 5)
    assert path.read_bytes() == b"photo"
    assert keep_photo("root", b"photo") == PhotoFile(str(path), 5)
    assert os.listdir(path.parent) == [digest]


def test_photo_and_its_new_folders_are_flushed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flushed: set[str] = set()
    monkeypatch.setattr(os, "fsync", lambda fd: flushed.add(os.readlink(f"/proc/self/fd/{fd}")))
    path = Path(keep_photo(str(tmp_path / "root"), b"photo").uri)
    folders = {str(path.parents[depth]) for depth in range(4)}  # <2 hex>, photos, root, tmp_path
    assert folders <= flushed
    assert any(name.startswith(f"{path.parent}/.{path.name}") for name in flushed)


def test_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").touch()
    with pytest.raises(InputError, match="choose another place"):
        keep_photo(str(tmp_path), b"photo")
