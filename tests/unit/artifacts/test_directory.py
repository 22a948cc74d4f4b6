"""The directory of an artifact: when it exists, when it is up to date, when it is refused."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, CatalogManifest, InputEntry, ReportManifest
from raysys.errors import DamagedData, InputError, MissingError, SpaceMismatch

SHARDS = InputEntry(uri="s3://shop/shards", fingerprint="f00d")


@pytest.fixture
def spec(tmp_path: Path) -> ArtifactSpec:
    return ArtifactSpec(str(tmp_path / "catalog"), CatalogManifest, {"num_items": 3}, {"shards": SHARDS})


def with_config(spec: ArtifactSpec, **config: Any) -> ArtifactSpec:
    return ArtifactSpec(spec.uri, spec.manifest, config, spec.inputs)


def make(spec: ArtifactSpec, data: bytes = b"hello") -> CatalogManifest:
    artifacts.begin(spec)
    storage.write_bytes(storage.join(spec.uri, "data.bin"), data)
    files = artifacts.describe_files(spec.uri)
    manifest = CatalogManifest(**artifacts.common_fields(spec, files, 3, 0.5))
    return artifacts.publish(spec.uri, manifest)


def test_published_artifact_opens_with_its_manifest(spec: ArtifactSpec) -> None:
    manifest = make(spec)
    assert artifacts.open_artifact(spec.uri, CatalogManifest) == manifest
    assert manifest.files["data.bin"].bytes == 5
    assert (manifest.num_items, manifest.seconds, manifest.inputs) == (3, 0.5, {"shards": SHARDS})
    assert list(storage.list_files(spec.uri)) == ["data.bin", "manifest.json"]


def test_directory_without_manifest_does_not_exist(spec: ArtifactSpec) -> None:
    artifacts.begin(spec)
    storage.write_bytes(storage.join(spec.uri, "data.bin"), b"hello")
    assert artifacts.find_up_to_date(spec) is None
    with pytest.raises(MissingError) as caught:
        artifacts.open_artifact(spec.uri, CatalogManifest)
    assert str(caught.value) == (
        f"{spec.uri}: no Catalog here (no manifest.json); make it with `raysys pack`"
    )


def test_manifest_is_written_last(spec: ArtifactSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = storage.write_bytes

    def record(uri: str, data: bytes, **options: bool) -> None:
        written.append(uri.rsplit("/", 1)[-1])
        write(uri, data, **options)

    monkeypatch.setattr(storage, "write_bytes", record)
    make(spec)
    assert written == [".spec_hash", "data.bin", "manifest.json"]


def test_artifact_is_up_to_date_only_for_its_own_spec_hash(spec: ArtifactSpec) -> None:
    manifest = make(spec)
    assert artifacts.find_up_to_date(spec) == manifest
    assert artifacts.find_up_to_date(with_config(spec, num_items=4)) is None


def test_fingerprint_depends_only_on_file_contents(spec: ArtifactSpec) -> None:
    first = make(spec)
    assert make(with_config(spec, num_items=4)).fingerprint == first.fingerprint
    assert make(spec, b"other").fingerprint != first.fingerprint


def test_child_records_the_fingerprint_of_its_input(spec: ArtifactSpec) -> None:
    manifest = make(spec)
    entry = artifacts.as_input(spec.uri, CatalogManifest)
    assert entry == InputEntry(uri=spec.uri, fingerprint=manifest.fingerprint)


def test_artifact_of_another_kind_is_refused(spec: ArtifactSpec) -> None:
    make(spec)
    with pytest.raises(InputError) as caught:
        artifacts.open_artifact(spec.uri, ReportManifest)
    assert str(caught.value) == f"{spec.uri}: a Report is needed, found a Catalog; check the path"


def test_truncated_file_is_refused(spec: ArtifactSpec) -> None:
    make(spec)
    Path(spec.uri, "data.bin").write_bytes(b"hel")
    with pytest.raises(DamagedData) as caught:
        artifacts.open_artifact(spec.uri, CatalogManifest)
    assert str(caught.value) == (
        f"{spec.uri}/data.bin: should have 5 bytes, found 3 bytes; `raysys pack` makes it again"
    )


def test_builder_finds_nothing_up_to_date_in_a_damaged_artifact(
    spec: ArtifactSpec, caplog: pytest.LogCaptureFixture
) -> None:
    data = Path(spec.uri, "data.bin")
    damages: dict[str, Callable[[], object]] = {
        "data.bin: should have 5 bytes, found 3 bytes": lambda: data.write_bytes(b"hel"),
        "data.bin: should have 5 bytes, found nothing": data.unlink,
        "data.bin: was modified: its SHA-256 differs from the manifest": lambda: data.write_bytes(b"HELLO"),
        "not a manifest": lambda: Path(spec.uri, "manifest.json").write_text("{"),
    }
    for message, damage in damages.items():
        make(spec)
        caplog.clear()
        damage()
        assert artifacts.find_up_to_date(spec) is None
        assert message in caplog.text
        assert "damaged, to be made again: " in caplog.text


def test_unchanged_copy_is_up_to_date_and_read_once(
    spec: ArtifactSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = make(spec)
    Path(spec.uri, "data.bin").write_bytes(b"hello")
    assert artifacts.find_up_to_date(spec) == manifest
    monkeypatch.setattr(storage, "sha256_of", None)
    assert artifacts.find_up_to_date(spec) == manifest


def test_missing_file_is_refused(spec: ArtifactSpec) -> None:
    make(spec)
    Path(spec.uri, "data.bin").unlink()
    with pytest.raises(DamagedData) as caught:
        artifacts.open_artifact(spec.uri, CatalogManifest)
    assert (
        str(caught.value)
        == f"{spec.uri}/data.bin: should have 5 bytes, found nothing; `raysys pack` makes it again"
    )


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "Catalog", "format": 4}'])
def test_invalid_manifest_is_refused_in_one_line(spec: ArtifactSpec, text: str) -> None:
    storage.write_bytes(storage.join(spec.uri, "manifest.json"), text.encode())
    with pytest.raises(DamagedData) as caught:
        artifacts.open_artifact(spec.uri, CatalogManifest)
    assert str(caught.value).startswith(f"{spec.uri}/manifest.json: not a manifest (")
    assert str(caught.value).endswith("); `raysys pack` makes it again")
    assert "\n" not in str(caught.value)


def test_artifact_of_another_format_is_not_up_to_date(spec: ArtifactSpec) -> None:
    make(spec)
    path = Path(spec.uri, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    assert artifacts.find_up_to_date(spec) is None


def test_artifact_of_another_format_cannot_be_opened(spec: ArtifactSpec) -> None:
    make(spec)
    path = Path(spec.uri, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    with pytest.raises(MissingError) as caught:
        artifacts.open_artifact(spec.uri, CatalogManifest)
    assert str(caught.value) == (
        f"{spec.uri}: no Catalog here (manifest.json has format 0, 4 is read); make it with `raysys pack`"
    )


def test_interrupted_attempt_at_the_same_spec_keeps_its_files(spec: ArtifactSpec) -> None:
    artifacts.begin(spec)
    storage.write_bytes(storage.join(spec.uri, "part-0"), b"done")
    artifacts.begin(spec)
    assert storage.read_bytes(storage.join(spec.uri, "part-0")) == b"done"


def test_attempt_at_another_spec_starts_empty(spec: ArtifactSpec) -> None:
    artifacts.begin(spec)
    storage.write_bytes(storage.join(spec.uri, "part-0"), b"stale")
    artifacts.begin(with_config(spec, num_items=4))
    assert not storage.exists(storage.join(spec.uri, "part-0"))


def test_artifact_does_not_exist_while_it_is_remade(spec: ArtifactSpec) -> None:
    make(spec)
    artifacts.begin(with_config(spec, num_items=4))
    with pytest.raises(MissingError):
        artifacts.open_artifact(spec.uri, CatalogManifest)


def test_draft_file_is_not_part_of_the_artifact(spec: ArtifactSpec) -> None:
    # A killed writer leaves its draft beside the files of the next attempt.
    with storage.writable_file(storage.join(spec.uri, "part-0")) as path:
        path.write_bytes(b"half")
        assert artifacts.describe_files(spec.uri) == {}


def test_only_named_files_are_described(spec: ArtifactSpec) -> None:
    for name in ("a", "b"):
        storage.write_bytes(storage.join(spec.uri, name), b"x")
    assert list(artifacts.describe_files(spec.uri, only=["b"])) == ["b"]


def test_vectors_of_different_spaces_are_not_compared() -> None:
    artifacts.require_same_space("query", "a" * 64, "index", "a" * 64)
    with pytest.raises(SpaceMismatch) as caught:
        artifacts.require_same_space("query", "a" * 64, "indexes/shop", "b" * 64)
    assert str(caught.value) == (
        "query is of embedding space aaaaaaaaaaaa, indexes/shop of bbbbbbbbbbbb: "
        "their vectors cannot be compared; embed and index again with the encoder that is used"
    )
