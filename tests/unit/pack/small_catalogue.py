"""A small catalogue as a CSV with photos, and what packing it in one process gives."""

from __future__ import annotations

import csv
import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import webdataset
from PIL import Image

from raysys.artifacts import ArtifactSpec, ShardSetManifest, specs
from raysys.config import Config
from raysys.config.schema import SPLITS, AttributeSplit, Columns, ColumnSplit, PackConfig, TableCatalog
from raysys.pack.catalog import sources
from raysys.pack.fingerprint import fingerprint
from raysys.pack.serial_executor import SerialExecutor
from raysys.pack.shard_sets import Catalog, Executor, pack_shard_sets

SELLERS = ("anna", "ben", "cleo", "dora", "emil", "fay", "gus", "hana")
BY_SELLER = AttributeSplit(attribute="seller", val_fraction=0.25, test_fraction=0.25)
BY_COLUMN = ColumnSplit(column="part")


def jpeg(colour: str = "red", size: tuple[int, int] = (8, 8), **options: Any) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "JPEG", **options)
    return data.getvalue()


def catalogue(folder: Path, rows: Sequence[dict[str, str]], section: PackConfig | None = None) -> Config:
    """A CSV of rows (a red photo, all in train, where a row says nothing else) and how to pack it."""
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


def wanted(config: Config) -> tuple[Catalog, dict[str, ArtifactSpec]]:
    table, how = config.catalog, config.pack.split
    assert isinstance(table, TableCatalog)
    counted = fingerprint(table, sources(table), how.column if isinstance(how, ColumnSplit) else None)
    by_split: dict[str, ArtifactSpec] = {
        split: specs.shard_set(config, split, table.columns, counted.entry) for split in SPLITS
    }
    return Catalog(table, sources(table), counted.num_rows, counted.entry), by_split


def packed(config: Config, flow: Executor | None = None) -> dict[str, ShardSetManifest]:
    catalog, by_split = wanted(config)
    return pack_shard_sets(catalog, config.pack, by_split, flow or SerialExecutor())


def many(num_items: int) -> list[dict[str, str]]:
    return [
        {"item_id": f"i{number:03d}", "title": f"dress {number}", "seller": SELLERS[number % len(SELLERS)]}
        for number in range(num_items)
    ]


def iterated(tars: Sequence[Path]) -> list[dict[str, Any]]:
    """The samples of tars as plain WebDataset gives them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # webdataset leaves its files open
        return list(webdataset.WebDataset([str(path) for path in tars], shardshuffle=False))


def samples(config: Config, split: str) -> dict[str, Any]:
    """The samples of a split by their keys."""
    found = iterated(sorted(Path(config.root, "shards", split).glob("*.tar")))
    assert len({sample["__key__"] for sample in found}) == len(found)
    return {sample["__key__"]: sample for sample in found}
