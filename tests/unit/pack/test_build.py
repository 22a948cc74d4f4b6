"""A pack is deterministic, continues after an interruption, and runs once at a time."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from raysys import artifacts
from raysys.artifacts import ShardSetManifest
from raysys.config import Config
from raysys.config.schema import SPLITS, PackConfig
from raysys.errors import Busy, InputError, StorageError
from raysys.pack import build
from raysys.pack.executor import SerialExecutor
from tests.unit.pack.small_catalogue import (
    BY_COLUMN,
    BY_SELLER,
    files_folder,
    numbered_rows,
    open_with_specs,
    pack,
    run,
    write_catalogue,
)


def test_packing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    section = PackConfig(split=BY_SELLER, items_per_shard=7)
    first, second = (
        write_catalogue(tmp_path / name, numbered_rows(40), section) for name in ("first", "second")
    )
    first_manifests, second_manifests = pack(first), pack(second)
    for split in SPLITS:
        assert first_manifests[split].fingerprint == second_manifests[split].fingerprint
        ours, theirs = (files_folder(config, split) for config in (first, second))
        assert ours.name == theirs.name
        assert "ledger.parquet" in contents(ours)
        assert contents(ours) == contents(theirs)


def test_catalogue_without_training_items_is_an_error(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, [{"item_id": "a", "part": "test"}])
    with pytest.raises(InputError) as caught:
        pack(config)
    assert str(caught.value) == (
        f"{tmp_path}/items.csv: no usable row is in the train split; check pack.split and the catalogue"
    )


def test_second_run_is_up_to_date_until_the_catalogue_changes(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(10), PackConfig(split=BY_COLUMN))
    manifests = pack(config)
    by_split = open_with_specs(config)[1]
    assert {split: artifacts.find_up_to_date(spec) for split, spec in by_split.items()} == manifests
    write_catalogue(tmp_path, numbered_rows(11), config.pack)
    changed = [artifacts.find_up_to_date(spec) for spec in open_with_specs(config)[1].values()]
    assert changed == [None, None, None]


def test_raised_limit_alone_rebuilds_nothing(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(10), PackConfig(split=BY_COLUMN))
    manifests = pack(config)
    raised = config.model_copy(update={"pack": config.pack.model_copy(update={"max_bad_fraction": 0.5})})
    assert artifacts.find_up_to_date(open_with_specs(raised)[1]["train"]) == manifests["train"]


class InterruptedExecutor(SerialExecutor):
    """Stops like a killed process: after `parts` parts of the scan, or after the first `shards` shards."""

    def __init__(self, parts: int | None = None, shards: int | None = None) -> None:
        self.parts, self.shards, self.scanned_rows = parts, shards, 0

    def scan(self, reads: Any, work: Any) -> Iterator[int]:
        for number, num_rows in enumerate(super().scan(reads, work), start=1):
            self.scanned_rows += num_rows
            yield num_rows
            if number == self.parts:
                raise KeyboardInterrupt

    def write(self, reads: Any, num_shards: int, work: Any) -> Iterator[int]:
        table = reads[0]()
        if self.shards is not None:
            yield work(table.filter(pc.less(table.column("planned_shard"), self.shards)))
            raise KeyboardInterrupt
        yield work(table)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder except those that hold times."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in paths
        if path.name not in ("manifest.json", ".lock")
    }


@pytest.mark.parametrize(
    "interrupted", [InterruptedExecutor(parts=2), InterruptedExecutor(shards=1)], ids=["scan", "write"]
)
def test_interrupted_pack_continues_and_gives_the_same_bytes(
    tmp_path: Path, interrupted: InterruptedExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "ROWS_PER_PART", 10)
    section = PackConfig(split=BY_SELLER, items_per_shard=7)
    reference, config = (
        write_catalogue(tmp_path / name, numbered_rows(40), section) for name in ("reference", "resumed")
    )
    pack(reference)
    with pytest.raises(KeyboardInterrupt):
        pack(config, interrupted)
    assert not list(Path(config.root).rglob("manifest.json"))
    second = InterruptedExecutor()  # is not interrupted
    pack(config, second)
    assert second.scanned_rows == (20 if interrupted.parts else 0)
    assert contents(Path(config.root)) == contents(Path(reference.root))


def test_concurrent_pack_in_the_same_folder_is_an_error(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(3))

    class PackingTwice(SerialExecutor):
        def scan(self, reads: Any, work: Any) -> Iterator[int]:
            pack(config)
            raise AssertionError("both packs run")

    with pytest.raises(Busy, match=r"another `raysys pack` is running here; wait") as caught:
        pack(config, PackingTwice())
    assert str(caught.value).startswith(f"{config.root}/shards: ")
    assert pack(config)["train"].num_items == 3


def test_full_disk_is_one_line_and_the_pack_continues_when_there_is_space(tmp_path: Path) -> None:
    section = PackConfig(split=BY_COLUMN, items_per_shard=100)
    config = write_catalogue(tmp_path, numbered_rows(100), section)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, before[1]))  # 100 samples take 200,000 bytes
    try:
        with pytest.raises(StorageError, match="File too large") as caught:
            pack(config)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert str(caught.value).startswith(f"{files_folder(config)}/00000.tar: ")
    assert "free space" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not list(Path(config.root).rglob("manifest.json"))
    assert pack(config)["train"].num_items == 100


@pytest.mark.parametrize("name", ["00000.tar", "items.parquet", "manifest.json"])
@pytest.mark.parametrize("damage", ["cut", "gone", "changed"])
def test_damaged_file_is_written_again_with_the_same_bytes(tmp_path: Path, name: str, damage: str) -> None:
    config = write_catalogue(tmp_path, numbered_rows(20), PackConfig(split=BY_SELLER, items_per_shard=7))
    fingerprints = {split: manifest.fingerprint for split, manifest in pack(config).items()}
    before, path = contents(Path(config.root)), files_folder(config) / name
    if name == "manifest.json":
        path = Path(config.root, "shards/train", name)
    data = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(data[:-600] if damage == "cut" else b"!" * len(data))
    assert not run(config).is_skipped
    assert contents(Path(config.root)) == before
    assert {split: manifest.fingerprint for split, manifest in published(config).items()} == fingerprints
    assert run(config).is_skipped


def test_lost_tar_alone_is_written_again(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, numbered_rows(20), PackConfig(split=BY_COLUMN, items_per_shard=7))
    pack(config)
    before = contents(Path(config.root))
    written = {path: path.stat().st_mtime_ns for path in sorted(files_folder(config).glob("*.tar"))}
    lost, *kept = written
    lost.unlink()
    assert not run(config).is_skipped
    assert contents(Path(config.root)) == before
    assert len(kept) == 2
    assert {path: path.stat().st_mtime_ns for path in kept} == {path: written[path] for path in kept}


def published(config: Config) -> dict[str, ShardSetManifest]:
    """The manifests of a packed catalogue."""
    uris = {split: f"{config.root}/shards/{split}" for split in SPLITS}
    return {split: artifacts.open_artifact(uri, ShardSetManifest) for split, uri in uris.items()}
