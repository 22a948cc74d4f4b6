"""A pack through Ray Data gives the same bytes as one in this process, also after kills."""

from __future__ import annotations

import csv
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from raysys.artifacts import ArtifactSpec, specs
from raysys.config import Config, load_config
from raysys.config.schema import SPLITS, PackConfig, TableCatalog
from raysys.errors import InputError, RaysysError, unforeseen_at
from raysys.pack import build
from raysys.pack.build import pack_shard_sets
from raysys.pack.catalog import open_catalog
from raysys.pack.executor import Executor, SerialExecutor
from raysys.pack.ray_executor import RayExecutor

pytestmark = [
    # Ray 2.60 sets its own deprecated settings when it makes a DataContext.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
NUM_COLOURS = 60
START_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of 60 colours; every third is a PNG."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(NUM_COLOURS):
        photo = Image.new("RGB", (16, 16), (number * 4, 255 - number * 4, 128))
        data = io.BytesIO()
        photo.save(data, "PNG" if number % 3 == 0 else "JPEG")
        (folder / str(number)).write_bytes(data.getvalue())
    return folder


def write_catalogue(
    folder: Path, photos: Path, num_rows: int, items_per_shard: int, part: str = "train"
) -> Config:
    """A CSV and the configuration that packs it; the photo of every 97th row is missing."""
    folder.mkdir(parents=True)
    with (folder / "items.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["item_id", "title", "image", "seller", "part"])
        for number in range(num_rows):
            photo = photos / str(number % NUM_COLOURS) if number % 97 else "gone.jpg"
            writer.writerow([f"i{number}", f"cup {number}", photo, f"s{number % 41}", part])
    settings = {
        "name": "small",
        "root": str(folder / "root"),
        "catalog": {
            "kind": "table",
            "path": str(folder / "items.csv"),
            "columns": {"attributes": {"seller": "text"}},
        },
        "pack": {"split": {"kind": "attribute", "attribute": "seller"}, "items_per_shard": items_per_shard},
        "ray": {"num_cpus": 2, "object_store_megabytes": 100},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return load_config(str(folder / "config.yaml"))


def pack(config: Config, executor: Executor) -> None:
    table = config.catalog
    assert isinstance(table, TableCatalog)
    catalog = open_catalog(table, config.pack.split)
    by_split: dict[str, ArtifactSpec] = {
        split: specs.shard_set(config, split, table.columns, catalog.entry) for split in SPLITS
    }
    pack_shard_sets(catalog, config.pack, by_split, executor)


def contents(config: Config) -> dict[str, bytes]:
    """Every file below the root except those that hold times; without the names of versions.

    The name of a version depends on the ledger, which names the table, and so on the folder of a test.
    """
    root = Path(config.root)
    paths = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {
        re.sub("/version-[0-9a-f]{12}/", "/", str(path.relative_to(root))): path.read_bytes()
        for path in paths
        if path.name not in ("manifest.json", ".lock")
    }


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    "rows_per_read",
    # The shuffle takes 20 s to start; it is meant for larger catalogues than a test has.
    [10_000, pytest.param(130, marks=pytest.mark.slow)],
    ids=["ranges", "shuffle"],
)
def test_ray_executor_gives_the_bytes_of_the_serial_executor(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, rows_per_read: int
) -> None:
    monkeypatch.setattr(build, "ROWS_PER_PART", 50)
    monkeypatch.setattr(build, "ROWS_PER_READ", rows_per_read)
    serial_config, ray_config = (
        write_catalogue(tmp_path / name, photos, 400, 60) for name in ("serial", "ray")
    )
    pack(serial_config, SerialExecutor())
    pack(ray_config, RayExecutor())
    serial, distributed = contents(serial_config), contents(ray_config)
    assert len([name for name in serial if name.endswith(".tar")]) >= 7  # 395 items in tars of 60
    assert serial.keys() == distributed.keys()
    # The ledgers name the table, whose folders differ.
    assert {name: data for name, data in serial.items() if "ledger" not in name} == {
        name: data for name, data in distributed.items() if "ledger" not in name
    }


@pytest.mark.usefixtures("ray_cluster")
def test_input_error_in_a_task_is_raised_as_one_line(tmp_path: Path, photos: Path) -> None:
    config = write_catalogue(tmp_path / "config", photos, 5, 60, part="dev")
    by_column = PackConfig.model_validate({"split": {"kind": "column", "column": "part"}})
    with pytest.raises(InputError) as caught:
        pack(config.model_copy(update={"pack": by_column}), RayExecutor())
    where = f"{tmp_path}/config/items.csv:2"
    assert str(caught.value) == f"{where}: column 'part' should be one of train, val, test, got 'dev'"


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("loop", ["scan", "write_shards"])
def test_unforeseen_exception_in_a_task_is_one_line_with_its_place(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    def fail(*_: object, **__: object) -> int:
        with unforeseen_at("the place"):
            raise ZeroDivisionError("odd")

    monkeypatch.setattr(build, loop, fail)
    with pytest.raises(RaysysError) as caught:
        pack(write_catalogue(tmp_path / "config", photos, 40, 60), RayExecutor())
    assert str(caught.value) == (
        "the place: unexpected ZeroDivisionError (odd); run the command again; "
        "if it fails there again, report this line"
    )


# Three packs, two of them killed. unit/pack/test_build.py interrupts a pack at the same steps in one process.
@pytest.mark.slow
def test_pack_killed_in_the_scan_and_while_writing_continues_with_the_same_bytes(
    tmp_path: Path, photos: Path
) -> None:
    config = write_catalogue(tmp_path / "killed", photos, 6000, 200)
    home = Path(config.root, "shards")

    def scratch_files(pattern: str) -> list[Path]:
        return list(home.glob(f".packing-*/{pattern}"))

    kill_when(config, lambda: len(scratch_files("part-*.parquet")) >= 1)
    scanned = {path.name: path.stat().st_mtime_ns for path in scratch_files("part-*.parquet")}
    assert 1 <= len(scanned) < 6
    assert not list(home.rglob("manifest.json"))

    kill_when(config, lambda: len(scratch_files("done-*.parquet")) >= 2)
    written = {path.name: path.stat().st_mtime_ns for path in scratch_files("done-*.parquet")}
    assert 2 <= len(written) < 30
    all_scanned = {path.name: path.stat().st_mtime_ns for path in scratch_files("part-*.parquet")}
    assert len(all_scanned) == 6
    assert {name: all_scanned[name] for name in scanned} == scanned  # no part was scanned twice
    assert not list(home.rglob("manifest.json"))

    pack(config, SerialExecutor())
    reference = config.model_copy(update={"root": str(tmp_path / "reference")})
    pack(reference, SerialExecutor())
    assert contents(config) == contents(reference)


def command(config: Config) -> list[str]:
    return [sys.executable, "-m", "raysys", "pack", str(Path(config.root).parent / "config.yaml")]


def kill_when(config: Config, condition: Callable[[], bool]) -> None:
    """Start a pack and kill it with SIGKILL as soon as the condition holds."""
    process = subprocess.Popen(command(config), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    deadline = time.monotonic() + START_TIMEOUT_S
    while not condition():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < deadline, "the condition never held"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
