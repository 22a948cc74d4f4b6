"""An artifact is replaced by one write; its old files are found until they are deleted."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, CatalogManifest


def publish(folder: Path, version: str) -> CatalogManifest:
    """Publish a version with the files `data.bin` and `table.parquet`, which hold its name."""
    for name in ("data.bin", "table.parquet"):
        storage.write_bytes(f"{folder}/{version}/{name}", version.encode())
    spec = ArtifactSpec(str(folder), CatalogManifest, {}, {})
    files = artifacts.describe_files(f"{folder}/{version}")
    manifest = CatalogManifest(**artifacts.common_fields(spec, files, 2, 0.5))
    artifacts.publish(f"{folder}/{version}", manifest)
    return artifacts.publish_version(str(folder), version, manifest)


def files_below(folder: Path) -> list[str]:
    return list(storage.list_files(str(folder), hidden=True))


def test_last_published_version_is_the_artifact_and_can_be_opened_on_its_own(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    manifest = publish(tmp_path, "two")
    assert manifest.folder == "two"
    assert artifacts.open_artifact(str(tmp_path), CatalogManifest) == manifest
    assert artifacts.files_uri(str(tmp_path), manifest) == f"{tmp_path}/two"
    version = artifacts.open_artifact(f"{tmp_path}/two", CatalogManifest)
    assert version == manifest.model_copy(update={"folder": ""})
    assert (tmp_path / "one" / "data.bin").read_bytes() == b"one"


def test_all_but_the_published_and_the_kept_version_is_deleted(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    publish(tmp_path, "two")
    for name in ("three/data.bin", "two/excess.tar", "four/.data.bin.draft", ".spec_hash", "data.bin"):
        storage.write_bytes(f"{tmp_path}/{name}", b"x")
    artifacts.delete_other_versions(str(tmp_path), CatalogManifest, keep={"three"})
    published = ["manifest.json", "two/data.bin", "two/manifest.json", "two/table.parquet"]
    assert files_below(tmp_path) == ["manifest.json", "three/data.bin", *published[1:]]
    artifacts.delete_other_versions(str(tmp_path), CatalogManifest)
    assert files_below(tmp_path) == published


def test_artifact_that_cannot_be_read_is_deleted(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    (tmp_path / "manifest.json").write_text("damaged")
    artifacts.delete_other_versions(str(tmp_path), CatalogManifest, keep={"two"})
    assert files_below(tmp_path) == []


def test_reader_that_a_replacement_overtakes_opens_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path, "one")
    list_files = storage.list_files

    def replaced_first(uri: str, **options: bool) -> dict[str, int]:
        monkeypatch.setattr(storage, "list_files", list_files)
        publish(tmp_path, "two")
        artifacts.delete_other_versions(str(tmp_path), CatalogManifest)
        return list_files(uri, **options)

    monkeypatch.setattr(storage, "list_files", replaced_first)
    assert artifacts.open_artifact(str(tmp_path), CatalogManifest).folder == "two"


def begun(folder: Path, *names: str, settings: str = "new") -> str:
    """Begin a version and write files of it."""
    version = artifacts.begin_version(ArtifactSpec(str(folder), CatalogManifest, {"settings": settings}, {}))
    for name in names:
        storage.write_bytes(f"{folder}/{version}/{name}", name.encode())
    return version


def test_published_artifact_stays_while_the_next_one_is_made(tmp_path: Path) -> None:
    publish(tmp_path, "one")
    begun(tmp_path, "other", settings="given up")
    version = begun(tmp_path, "part-0")
    assert begun(tmp_path, "part-1") == version  # after a kill
    assert files_below(tmp_path) == [
        "manifest.json", "one/data.bin", "one/manifest.json", "one/table.parquet",
        f"{version}/part-0", f"{version}/part-1",
    ]  # fmt: skip
    assert artifacts.open_artifact(str(tmp_path), CatalogManifest).folder == "one"


def test_intact_files_of_a_damaged_artifact_are_kept_when_it_is_made_again(tmp_path: Path) -> None:
    version = begun(tmp_path, "part-0", "part-1", "part-2")
    spec = ArtifactSpec(str(tmp_path), CatalogManifest, {"settings": "new"}, {})
    files = artifacts.describe_files(f"{tmp_path}/{version}")
    manifest = CatalogManifest(**artifacts.common_fields(spec, files, 3, 0.5))
    artifacts.publish_version(str(tmp_path), version, manifest)
    storage.write_bytes(f"{tmp_path}/{version}/part-1", b"damaged")
    assert artifacts.find_up_to_date(spec) is None
    assert artifacts.begin_version(spec) == version
    assert files_below(tmp_path) == [f"{version}/part-0", f"{version}/part-2"]
