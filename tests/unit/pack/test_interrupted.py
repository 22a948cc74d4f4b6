"""A pack that is killed at any step leaves the published ShardSets readable; the next run completes it."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import pytest

from raysys import artifacts
from raysys.artifacts import ShardSetManifest
from raysys.config.schema import SPLITS, PackConfig
from raysys.errors import MissingError
from raysys.shards.reader import read_shard, shards_of
from tests.unit.pack.killed_pack import STEPS, kill_before, titles
from tests.unit.pack.small_catalogue import BY_COLUMN, files_folder, numbered_rows, pack, run, write_catalogue
from tests.unit.pack.test_build import contents


def interrupt() -> NoReturn:
    raise KeyboardInterrupt


def test_repack_that_is_killed_at_any_step_shows_the_old_or_the_new_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [{"item_id": split, "title": "old", "part": split} for split in SPLITS]
    new = [{**row, "title": "new"} for row in old] + [{"item_id": "more", "title": "newer"}]
    section = PackConfig(split=BY_COLUMN, items_per_shard=1)
    reference = write_catalogue(tmp_path / "reference", new, section)
    run(reference)
    run(write_catalogue(tmp_path / "config", old, section))
    config = write_catalogue(tmp_path / "config", new, section)
    for step, replaced in STEPS.items():
        with monkeypatch.context() as patch:
            kill_before(step, interrupt, patch)
            with pytest.raises(KeyboardInterrupt):
                run(config)
        expected = {split: ["new"] if split in replaced else ["old"] for split in SPLITS}
        if "train" in replaced:
            expected["train"] = ["new", "newer"]
        assert {split: titles(config, split) for split in SPLITS} == expected, step
    assert not run(config).is_skipped
    assert run(config).is_skipped
    assert contents(Path(config.root)) == contents(Path(reference.root))


def test_reader_of_a_replaced_set_is_told_so(tmp_path: Path) -> None:
    section = PackConfig(split=BY_COLUMN)
    config = write_catalogue(tmp_path, numbered_rows(3), section)
    pack(config)
    (shard,) = shards_of(f"{config.root}/shards/train")
    pack(write_catalogue(tmp_path, numbered_rows(4), section))
    with pytest.raises(MissingError, match=r"00000\.tar: no such file any more; .*packed again meanwhile"):
        next(read_shard(shard))


def test_changed_setting_without_effect_keeps_the_files_and_the_fingerprint(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(6), PackConfig(split=BY_COLUMN, items_per_shard=4))
    before, folder = pack(config)["train"], files_folder(config)
    section = PackConfig(split=BY_COLUMN, items_per_shard=4, shard_megabytes=100)
    after = pack(config.model_copy(update={"pack": section}))["train"]
    assert (after.spec_hash == before.spec_hash, after.fingerprint == before.fingerprint) == (False, True)
    assert files_folder(config) == folder


def test_set_without_a_folder_of_its_own_is_replaced_completely(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(3), PackConfig(split=BY_COLUMN))
    manifest = pack(config)["train"]
    uri, folder = Path(config.root, "shards/train"), files_folder(config)
    for path in folder.iterdir():  # as `raysys verify --repair` writes it
        path.rename(uri / path.name)
    folder.rmdir()
    assert artifacts.open_artifact(str(uri), ShardSetManifest) == manifest.model_copy(update={"folder": ""})
    assert titles(config, "train") == ["dress 0", "dress 1", "dress 2"]
    pack(write_catalogue(tmp_path, numbered_rows(2), config.pack))
    assert {path.name for path in uri.iterdir()} == {"manifest.json", files_folder(config).name}
