"""A pack through Ray Data gives the bytes of one without, whatever was killed on the way."""

from __future__ import annotations

import csv
import io
import os
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
from raysys.errors import InputError
from raysys.pack import shard_sets as packing
from raysys.pack.catalog import sources
from raysys.pack.fingerprint import fingerprint
from raysys.pack.ray_executor import RayExecutor
from raysys.pack.serial_executor import SerialExecutor
from raysys.pack.shard_sets import Catalog, Executor, pack_shard_sets

pytestmark = [
    # Ray 2.60 sets its own deprecated settings when it makes a DataContext.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
COLOURS = 60
START_TIMEOUT_S = 120.0


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos of so many colours; every third is a PNG."""
    folder = tmp_path_factory.mktemp("photos")
    for number in range(COLOURS):
        picture = Image.new("RGB", (16, 16), (number * 4, 255 - number * 4, 128))
        data = io.BytesIO()
        picture.save(data, "PNG" if number % 3 == 0 else "JPEG")
        (folder / str(number)).write_bytes(data.getvalue())
    return folder


def configured(
    folder: Path, photos: Path, num_rows: int, items_per_shard: int, part: str = "train"
) -> Config:
    folder.mkdir(parents=True)
    with (folder / "items.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["item_id", "title", "image", "seller", "part"])
        for number in range(num_rows):
            photo = photos / str(number % COLOURS) if number % 97 else "gone.jpg"
            writer.writerow([f"i{number}", f"cup {number}", photo, f"s{number % 41}", part])
    tree = {
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
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return load_config(str(folder / "config.yaml"))


def packed(config: Config, flow: Executor) -> None:
    table = config.catalog
    assert isinstance(table, TableCatalog)
    split = getattr(config.pack.split, "column", None)
    counted = fingerprint(table, sources(table), split)
    wanted: dict[str, ArtifactSpec] = {
        name: specs.shard_set(config, name, table.columns, counted.entry) for name in SPLITS
    }
    pack_shard_sets(
        Catalog(table, sources(table), counted.num_rows, counted.entry), config.pack, wanted, flow
    )


def tree(config: Config) -> dict[str, bytes]:
    """Every file below the root but for what tells the time."""
    root = Path(config.root)
    paths = (path for path in sorted(root.rglob("*")) if path.is_file())
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in paths
        if path.name not in ("manifest.json", ".lock")
    }


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    "rows_per_read",
    # The shuffle is for catalogues of more rows than a test has: its start takes twenty seconds.
    [10_000, pytest.param(130, marks=pytest.mark.slow)],
    ids=["ranges", "shuffle"],
)
def test_ray_data_and_one_process_give_the_same_bytes(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, rows_per_read: int
) -> None:
    monkeypatch.setattr(packing, "ROWS_PER_PART", 50)
    monkeypatch.setattr(packing, "ROWS_PER_READ", rows_per_read)
    alone, together = (configured(tmp_path / name, photos, 400, 60) for name in ("alone", "together"))
    packed(alone, SerialExecutor())
    packed(together, RayExecutor())
    ours, theirs = tree(alone), tree(together)
    assert len([name for name in ours if name.endswith(".tar")]) >= 7  # 395 items in tars of 60
    # The ledgers name the table, which lies elsewhere.
    assert {name: data for name, data in ours.items() if "ledger" not in name} == {
        name: data for name, data in theirs.items() if "ledger" not in name
    }
    assert {name for name in ours if "ledger" in name} == {name for name in theirs if "ledger" in name}


@pytest.mark.usefixtures("ray_cluster")
def test_what_is_wrong_with_a_row_comes_back_from_its_task_as_one_line(tmp_path: Path, photos: Path) -> None:
    config = configured(tmp_path / "config", photos, 5, 60, part="dev")
    by_column = PackConfig.model_validate({"split": {"kind": "column", "column": "part"}})
    with pytest.raises(InputError) as caught:
        packed(config.model_copy(update={"pack": by_column}), RayExecutor())
    where = f"{tmp_path}/config/items.csv:2"
    assert str(caught.value) == f"{where}: column 'part' should be one of train, val, test, got 'dev'"


# Three commands, of which two are killed; unit/shards/test_pack.py stops a pack at the same places in process.
@pytest.mark.slow
def test_a_pack_killed_in_the_survey_and_in_the_writing_continues_with_the_same_bytes(
    tmp_path: Path, photos: Path
) -> None:
    config = configured(tmp_path / "killed", photos, 6000, 200)
    home = Path(config.root, "shards")

    def found(pattern: str) -> list[Path]:
        return list(home.glob(f".packing-*/{pattern}"))

    killed_when(config, lambda: len(found("part-*.parquet")) >= 1)
    surveyed = {path.name: path.stat().st_mtime_ns for path in found("part-*.parquet")}
    assert 1 <= len(surveyed) < 6
    assert not list(home.rglob("manifest.json"))

    killed_when(config, lambda: len(found("done-*.parquet")) >= 2)
    written = {path.name: path.stat().st_mtime_ns for path in found("done-*.parquet")}
    assert 2 <= len(written) < 30
    again = {path.name: path.stat().st_mtime_ns for path in found("part-*.parquet")}
    assert len(again) == 6
    assert {name: again[name] for name in surveyed} == surveyed  # none of them was done twice
    assert not list(home.rglob("manifest.json"))

    packed(config, SerialExecutor())
    undisturbed = config.model_copy(update={"root": str(tmp_path / "undisturbed")})
    packed(undisturbed, SerialExecutor())
    assert tree(config) == tree(undisturbed)


def command(config: Config) -> list[str]:
    return [sys.executable, "-m", "raysys", "pack", str(Path(config.root).parent / "config.yaml")]


def killed_when(config: Config, is_time: Callable[[], bool]) -> None:
    """Start a pack and `kill -9` it as soon as it is time."""
    process = subprocess.Popen(command(config), stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    give_up = time.monotonic() + START_TIMEOUT_S
    while not is_time():
        assert process.poll() is None, process.communicate()[1].decode()
        assert time.monotonic() < give_up, "it never came so far"
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
