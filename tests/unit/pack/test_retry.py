"""Photos that could not be reached are tried again: by the next run of a pack, and on demand after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.config import Config
from raysys.config.schema import SPLITS, PackConfig
from raysys.errors import DamagedData, MissingError, UnreadableImage
from raysys.pack import photos
from raysys.shards.reader import read_shard, shards_of
from tests.unit.pack.small_catalogue import (
    BY_SELLER,
    files_folder,
    jpeg,
    numbered_rows,
    pack,
    run,
    write_catalogue,
)
from tests.unit.pack.test_build import InterruptedExecutor, contents, published

HOST = "https://img.example.com"


class Host:
    """A photo host; `down` holds the names that it does not serve now, `fetched` what was requested."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.down: set[str] = set()
        self.fetched: list[str] = []
        monkeypatch.setattr(photos, "fetch", self.fetch)

    def fetch(self, uri: str, section: PackConfig) -> bytes:
        name = uri.removeprefix(f"{HOST}/")
        self.fetched.append(name)
        if name in self.down:
            raise UnreadableImage(f"{uri}: no answer in 3 tries (status 503); try again later", "unreachable")
        if name == "gone":
            raise MissingError(f"{uri}: no such file (status 404); check the address")
        return jpeg((int(name) * 4, 255 - int(name) * 4, 128))


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def catalogue(folder: Path, names: list[str], limit: float) -> Config:
    rows = [
        {**row, "image": f"{HOST}/{name}"} for row, name in zip(numbered_rows(len(names)), names, strict=True)
    ]
    section = PackConfig(split=BY_SELLER, items_per_shard=5, max_bad_fraction=limit)
    return write_catalogue(folder, rows, section)


def test_next_run_of_a_failed_pack_fetches_only_the_unreachable_photos_again(
    tmp_path: Path, host: Host
) -> None:
    names = [*map(str, range(40)), "gone"]
    reference = catalogue(tmp_path / "reference", names, 0.1)
    pack(reference)
    config = catalogue(tmp_path / "config", names, 0.1)
    host.down = {"3", "17", "18", "30", "31"}
    with pytest.raises(DamagedData, match="5 unreachable"):
        pack(config)
    host.down, host.fetched = {"3"}, []
    assert sum(manifest.num_refused for manifest in pack(config).values()) == 2
    assert sorted(host.fetched) == ["17", "18", "3", "30", "31"]
    for split in SPLITS:  # the ledgers name the catalogues, whose folders differ
        ours, theirs = (contents(files_folder(each, split)) for each in (config, reference))
        assert ours.keys() == theirs.keys()


def test_photos_that_come_back_after_an_interruption_give_the_bytes_of_a_run_without_one(
    tmp_path: Path, host: Host
) -> None:
    names = [str(number) for number in range(40)]
    reference, config = (catalogue(tmp_path / name, names, 0.5) for name in ("reference", "config"))
    pack(reference)
    host.down = {str(number) for number in range(12)}
    with pytest.raises(KeyboardInterrupt):
        pack(config, InterruptedExecutor(shards=2))
    host.down, host.fetched = {"0"}, []
    with pytest.raises(KeyboardInterrupt):
        pack(config, InterruptedExecutor(shards=3))
    host.down, host.fetched = set(), []
    pack(config)
    assert host.fetched == ["0"]
    assert contents(Path(config.root)) == contents(Path(reference.root))


def test_tars_stay_if_the_photos_do_not_come_back(tmp_path: Path, host: Host) -> None:
    config = catalogue(tmp_path, [str(number) for number in range(40)], 0.5)
    host.down = {"0"}
    with pytest.raises(KeyboardInterrupt):
        pack(config, InterruptedExecutor(shards=2))
    written = {path: path.stat().st_mtime_ns for path in Path(config.root).rglob("*.tar")}
    assert written
    pack(config)
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_published_set_is_packed_again_on_demand_while_photos_are_missing(tmp_path: Path, host: Host) -> None:
    names = [str(number) for number in range(20)]
    config = catalogue(tmp_path, names, 0.5)
    retrying = config.model_copy(update={"pack": config.pack.model_copy(update={"retry_refused": True})})
    host.down = {"3", "4"}
    assert run(config).num_items == 18
    assert run(config).is_skipped
    host.down = {"3"}
    assert run(config).is_skipped
    assert (run(retrying).num_items, run(retrying).num_items) == (19, 19)
    host.down = set()
    assert (run(retrying).num_items, run(retrying).is_skipped, run(config).is_skipped) == (20, True, True)


def test_published_set_is_readable_until_its_successor_is_complete(tmp_path: Path, host: Host) -> None:
    names = [str(number) for number in range(40)]
    config, reference = (catalogue(tmp_path / name, names, 0.5) for name in ("config", "reference"))
    host.down = {str(number) for number in range(12)}
    before = pack(config)
    retrying = config.model_copy(update={"pack": config.pack.model_copy(update={"retry_refused": True})})
    for down in ({"0"}, set(), set()):  # interrupted with two plans, the second one twice
        host.down = set(down)
        with pytest.raises(KeyboardInterrupt):
            pack(retrying, InterruptedExecutor(shards=2))
        assert published(config) == before
        assert read_everything(config) == 28
    pack(retrying)
    pack(reference)
    assert contents(Path(config.root)) == contents(Path(reference.root))
    assert read_everything(config) == 40


def read_everything(config: Config) -> int:
    """The number of items in the shards of all splits."""
    shards = [shard for split in SPLITS for shard in shards_of(f"{config.root}/shards/{split}")]
    return sum(len(list(read_shard(shard))) for shard in shards)


def test_published_set_stays_if_the_retry_fails(tmp_path: Path, host: Host) -> None:
    config = catalogue(tmp_path, [str(number) for number in range(20)], 0.2)
    host.down = {"3"}
    pack(config)
    before = contents(Path(config.root))
    host.down = {str(number) for number in range(20)}
    retrying = config.model_copy(update={"pack": config.pack.model_copy(update={"retry_refused": True})})
    with pytest.raises(DamagedData, match="20 unreachable"):
        pack(retrying)
    after = contents(Path(config.root))
    assert {name: after[name] for name in before} == before
    assert run(config).is_skipped
