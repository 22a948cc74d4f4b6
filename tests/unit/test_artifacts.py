"""Artifacts: when one exists, when it is up to date, and when it is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from raysys import artifacts, storage
from raysys.artifacts import CatalogManifest, InputEntry, ReportManifest, Target
from raysys.errors import DamagedData, InputError, MissingError, SpaceMismatch

SHARDS = InputEntry(uri="s3://shop/shards", fingerprint="f00d")


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(str(tmp_path / "catalog"), CatalogManifest, {"num_items": 3}, {"shards": SHARDS})


def with_config(target: Target, **config: Any) -> Target:
    return Target(target.uri, target.manifest, config, target.inputs)


def make(target: Target, data: bytes = b"hello") -> CatalogManifest:
    artifacts.begin(target)
    storage.write_bytes(storage.join(target.uri, "data.bin"), data)
    files = artifacts.describe_files(target.uri)
    manifest = CatalogManifest(**artifacts.common_fields(target, files, 3, 0.5))
    return artifacts.publish(target.uri, manifest)


def test_published_artifact_opens_as_what_was_published(target: Target) -> None:
    manifest = make(target)
    assert artifacts.open_artifact(target.uri, CatalogManifest) == manifest
    assert manifest.files["data.bin"].bytes == 5
    assert (manifest.num_items, manifest.seconds, manifest.inputs) == (3, 0.5, {"shards": SHARDS})
    assert list(storage.list_files(target.uri)) == ["data.bin", "manifest.json"]


def test_directory_without_manifest_does_not_exist(target: Target) -> None:
    artifacts.begin(target)
    storage.write_bytes(storage.join(target.uri, "data.bin"), b"hello")
    assert artifacts.find_up_to_date(target) is None
    with pytest.raises(MissingError) as caught:
        artifacts.open_artifact(target.uri, CatalogManifest)
    assert str(caught.value) == (
        f"{target.uri}: no Catalog here (no manifest.json); make it with `raysys pack`"
    )


def test_manifest_is_the_last_file_that_is_written(target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[str] = []
    write = storage.write_bytes

    def note(uri: str, data: bytes, **options: bool) -> None:
        written.append(uri.rsplit("/", 1)[-1])
        write(uri, data, **options)

    monkeypatch.setattr(storage, "write_bytes", note)
    make(target)
    assert written == [".recipe", "data.bin", "manifest.json"]


def test_recipe_changes_with_config_and_with_contents_of_inputs(target: Target) -> None:
    other_content = {"shards": InputEntry(uri=SHARDS.uri, fingerprint="beef")}
    other_kind = Target(target.uri, ReportManifest, target.config, target.inputs)
    recipes = {
        target.recipe,
        with_config(target, num_items=4).recipe,
        Target(target.uri, target.manifest, target.config, other_content).recipe,
        Target(target.uri, target.manifest, target.config, {}).recipe,
        other_kind.recipe,
    }
    assert len(recipes) == 5


def test_recipe_does_not_change_with_places_or_order_of_keys(target: Target) -> None:
    moved = {"shards": InputEntry(uri="/elsewhere", fingerprint=SHARDS.fingerprint)}
    assert Target("/other", target.manifest, target.config, moved).recipe == target.recipe
    one, other = with_config(target, a=1, b=2), with_config(target, b=2, a=1)
    assert one.recipe == other.recipe


def test_same_recipe_is_up_to_date_and_another_is_not(target: Target) -> None:
    manifest = make(target)
    assert artifacts.find_up_to_date(target) == manifest
    assert artifacts.find_up_to_date(with_config(target, num_items=4)) is None


def test_fingerprint_depends_on_file_contents_alone(target: Target) -> None:
    first = make(target)
    assert make(with_config(target, num_items=4)).fingerprint == first.fingerprint
    assert make(target, b"other").fingerprint != first.fingerprint


def test_child_records_the_fingerprint_of_its_input(target: Target) -> None:
    manifest = make(target)
    entry = artifacts.as_input(target.uri, CatalogManifest)
    assert entry == InputEntry(uri=target.uri, fingerprint=manifest.fingerprint)


def test_other_kind_is_refused(target: Target) -> None:
    make(target)
    with pytest.raises(InputError) as caught:
        artifacts.open_artifact(target.uri, ReportManifest)
    assert str(caught.value) == f"{target.uri}: a Report is needed, found a Catalog; check the path"


def test_truncated_file_is_refused(target: Target) -> None:
    make(target)
    Path(target.uri, "data.bin").write_bytes(b"hel")
    with pytest.raises(DamagedData) as caught:
        artifacts.find_up_to_date(target)
    assert str(caught.value) == (f"{target.uri}: data.bin should have 5 bytes, found 3 bytes; rebuild it")


def test_lost_file_is_refused(target: Target) -> None:
    make(target)
    Path(target.uri, "data.bin").unlink()
    with pytest.raises(DamagedData) as caught:
        artifacts.open_artifact(target.uri, CatalogManifest)
    assert str(caught.value) == f"{target.uri}: data.bin should have 5 bytes, found nothing; rebuild it"


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "Catalog", "format": 2}'])
def test_file_that_is_no_manifest_is_refused_in_one_line(target: Target, text: str) -> None:
    storage.write_bytes(storage.join(target.uri, "manifest.json"), text.encode())
    with pytest.raises(DamagedData) as caught:
        artifacts.open_artifact(target.uri, CatalogManifest)
    assert str(caught.value).startswith(f"{target.uri}/manifest.json: not a manifest (")
    assert str(caught.value).endswith("); rebuild it")
    assert "\n" not in str(caught.value)


def test_artifact_of_an_older_layout_is_made_again(target: Target) -> None:
    make(target)
    path = Path(target.uri, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    assert artifacts.find_up_to_date(target) is None


def test_artifact_of_another_layout_is_no_input(target: Target) -> None:
    make(target)
    path = Path(target.uri, "manifest.json")
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 0}))
    with pytest.raises(MissingError) as caught:
        artifacts.open_artifact(target.uri, CatalogManifest)
    assert str(caught.value) == (
        f"{target.uri}: no Catalog here (manifest.json has layout 0, 2 is read); make it with `raysys pack`"
    )


def test_interrupted_attempt_at_the_same_recipe_keeps_its_files(target: Target) -> None:
    artifacts.begin(target)
    storage.write_bytes(storage.join(target.uri, "part-0"), b"done")
    artifacts.begin(target)
    assert storage.read_bytes(storage.join(target.uri, "part-0")) == b"done"


def test_attempt_at_another_recipe_starts_empty(target: Target) -> None:
    artifacts.begin(target)
    storage.write_bytes(storage.join(target.uri, "part-0"), b"stale")
    artifacts.begin(with_config(target, num_items=4))
    assert not storage.exists(storage.join(target.uri, "part-0"))


def test_artifact_that_is_made_again_does_not_exist_meanwhile(target: Target) -> None:
    make(target)
    artifacts.begin(with_config(target, num_items=4))
    with pytest.raises(MissingError):
        artifacts.open_artifact(target.uri, CatalogManifest)


def test_draft_is_no_part_of_the_artifact(target: Target) -> None:
    # A writer that is killed leaves its draft beside the files of the next attempt.
    with storage.writable_file(storage.join(target.uri, "part-0")) as path:
        path.write_bytes(b"half")
        assert artifacts.describe_files(target.uri) == {}


def test_only_named_files_are_described(target: Target) -> None:
    for name in ("a", "b"):
        storage.write_bytes(storage.join(target.uri, name), b"x")
    assert list(artifacts.describe_files(target.uri, only=["b"])) == ["b"]


def test_different_spaces_are_never_compared() -> None:
    artifacts.require_same_space("query", "a" * 64, "index", "a" * 64)
    with pytest.raises(SpaceMismatch) as caught:
        artifacts.require_same_space("query", "a" * 64, "indexes/shop", "b" * 64)
    assert str(caught.value) == (
        "query is of embedding space aaaaaaaaaaaa, indexes/shop of bbbbbbbbbbbb: "
        "their vectors cannot be compared; embed and index again with the encoder that is used"
    )
