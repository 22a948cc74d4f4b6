"""A small catalogue (a CSV with photos), and the result of packing it in this process."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import webdataset
from PIL import Image

from raysys.artifacts import ArtifactSpec, ShardSetManifest, specs
from raysys.artifacts.build import Outcome, Step, run_steps
from raysys.config import Config
from raysys.config.schema import SPLITS, AttributeSplit, Columns, ColumnSplit, PackConfig, TableCatalog
from raysys.pack import stage
from raysys.pack.build import pack_shard_sets
from raysys.pack.catalog import Catalog, open_catalog
from raysys.pack.executor import Executor, SerialExecutor

SELLERS = ("anna", "ben", "cleo", "dora", "emil", "fay", "gus", "hana")
BY_SELLER = AttributeSplit(attribute="seller", val_fraction=0.25, test_fraction=0.25)
BY_COLUMN = ColumnSplit(column="part")


def jpeg(colour: str | tuple[int, int, int] = "red", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    """A JPEG of one colour."""
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "JPEG", **options)
    return data.getvalue()


def write_catalogue(
    folder: Path, rows: Sequence[dict[str, str]], section: PackConfig | None = None
) -> Config:
    """Write a CSV of rows and return the configuration that packs it.

    Columns that a row lacks get defaults: a red photo, a title, a seller, the train split.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "red.jpg").write_bytes(jpeg())
    defaults = {"title": "red dress", "image": "red.jpg", "seller": "anna", "part": "train"}
    with (folder / "items.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["item_id", *defaults])
        writer.writeheader()
        writer.writerows({**defaults, **row} for row in rows)
    table = TableCatalog(path=str(folder / "items.csv"), columns=Columns(attributes={"seller": "text"}))
    return Config(
        root=str(folder / "root"),
        catalog=table,
        pack=section or PackConfig(split=BY_COLUMN, max_bad_fraction=1.0),
    )


def open_with_specs(config: Config) -> tuple[Catalog, dict[str, ArtifactSpec]]:
    """The opened catalogue, and the spec of each split's ShardSet."""
    table = config.catalog
    assert isinstance(table, TableCatalog)
    catalog = open_catalog(table, config.pack.split)
    by_split: dict[str, ArtifactSpec] = {
        split: specs.shard_set(config, split, table.columns, catalog.entry) for split in SPLITS
    }
    return catalog, by_split


def pack(config: Config, executor: Executor | None = None) -> dict[str, ShardSetManifest]:
    """Pack the catalogue. Returns the manifest of each split."""
    catalog, by_split = open_with_specs(config)
    return pack_shard_sets(catalog, config.pack, by_split, executor or SerialExecutor())


def run(config: Config) -> Outcome:
    """`raysys pack` in this process."""
    step = stage.steps(config)[-1]

    def build(specs: object) -> list[ShardSetManifest]:
        manifests = pack(config)
        return [manifests[split] for split in SPLITS]

    return run_steps("pack", [Step(step.uris, step.specs, build, step.is_final)])


def numbered_rows(num_items: int) -> list[dict[str, str]]:
    """Rows with distinct ids and titles of eight sellers."""
    return [
        {"item_id": f"i{number:03d}", "title": f"dress {number}", "seller": SELLERS[number % len(SELLERS)]}
        for number in range(num_items)
    ]


def read_tars(tars: Sequence[Path]) -> list[dict[str, Any]]:
    """The samples of tars, read by plain WebDataset."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files open
        return list(webdataset.WebDataset([str(path) for path in tars], shardshuffle=False))


def files_folder(config: Config, split: str = "train") -> Path:
    """The folder with the files of a split, of which a finished pack leaves one."""
    (folder,) = Path(config.root, "shards", split).glob("version-*")
    return folder


def read_ledger(config: Config, split: str = "train") -> list[dict[str, Any]]:
    """The refused rows of a split."""
    rows: list[dict[str, Any]] = pq.read_table(files_folder(config, split) / "ledger.parquet").to_pylist()
    return rows


def samples_by_key(config: Config, split: str) -> dict[str, Any]:
    """The samples of a split."""
    samples = read_tars(sorted(files_folder(config, split).glob("*.tar")))
    assert len({sample["__key__"] for sample in samples}) == len(samples)
    return {sample["__key__"]: sample for sample in samples}
