"""`raysys pack` as a command: items per second and memory, on catalogues of many small photos.

The baseline is webdataset's writer in a loop without any checks. The limit is the part that a checked
catalogue cannot skip: reading and decoding every photo on the same cores.
"""

from __future__ import annotations

import csv
import itertools
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import webdataset
import yaml

from raysys.bench.config import BenchRunConfig
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.encoder.preprocess import decode_image
from raysys.errors import ClusterError
from raysys.synth import generate_items, render_item

RAYSYS, BASELINE, LIMIT = "raysys pack", "webdataset.ShardWriter, unchecked", "read and decode alone"
_SEED = 7
_NUM_DISTINCT_PHOTOS = 300
_PROJECTED_ITEMS, _PROJECTED_CORES = 1_000_000, 16


def cases(config: BenchRunConfig, folder: Path) -> Iterator[Case]:
    """One case per catalogue size of `bench.pack_items`."""
    photos = _render_photos(folder / "drawn", config.bench.photo_px)
    cores = _num_cores(config)
    for num_items in config.bench.pack_items:
        table = _write_catalogue(folder / f"{num_items}", photos, num_items)
        contenders: dict[str, Callable[[], Measurement]] = {
            RAYSYS: partial(pack_with_raysys, table, config, num_items),
            BASELINE: partial(pack_unchecked, table, config.pack.items_per_shard),
            LIMIT: partial(decode_all, table, cores),
        }
        properties = {"num_items": num_items, "cores": cores, "photo_px": config.bench.photo_px}
        yield Case(f"{num_items:,} items", "items/s", contenders, BASELINE, LIMIT, properties)


def conclusions(results: Sequence[CaseResult]) -> list[str]:
    """The projection to a million items on sixteen cores, with its arithmetic."""
    smallest, largest = results[0], results[-1]
    few, many = smallest.properties["num_items"], largest.properties["num_items"]
    packed_few, packed_many = smallest.contenders[RAYSYS], largest.contenders[RAYSYS]
    few_s, many_s = few / packed_few.rate.median, many / packed_many.rate.median
    cores = largest.properties["cores"]
    if few < many:
        per_item_s = (many_s - few_s) / (many - few)
        arithmetic = (
            f"{few:,.0f} items took {few_s:.1f} s and {many:,.0f} took {many_s:.1f} s: "
            f"({many_s:.1f} - {few_s:.1f}) s / {many - few:,.0f}"
        )
    else:
        per_item_s = many_s / many
        arithmetic = f"{many:,.0f} items took {many_s:.1f} s: {many_s:.1f} s / {many:,.0f}"
    start_s = many_s - many * per_item_s
    projected_s = start_s + _PROJECTED_ITEMS * per_item_s * cores / _PROJECTED_CORES
    growth_bytes = packed_many.peak_memory_bytes - packed_few.peak_memory_bytes
    return [
        f"{arithmetic} = {per_item_s * 1e6:.0f} us per item on {cores:.0f} cores, "
        f"after {start_s:.1f} s of start-up",
        f"{_PROJECTED_ITEMS:,} items on {_PROJECTED_CORES} cores, if CPU-bound: {start_s:.1f} s + "
        f"{_PROJECTED_ITEMS:,} x {per_item_s * 1e6:.0f} us x {cores:.0f} / {_PROJECTED_CORES} "
        f"= {projected_s:.0f} s",
        f"peak memory grew by {growth_bytes / 1e6:.0f} MB over {many - few:,.0f} items",
    ]


def pack_with_raysys(table: Path, config: BenchRunConfig, num_items: int) -> Measurement:
    """Run the command in its own process into a new root; the time includes the start of Ray."""
    with tempfile.TemporaryDirectory(dir=table.parent) as folder:
        path = Path(folder) / "pack.yaml"
        path.write_text(yaml.safe_dump(_pack_settings(table, config, f"{folder}/root")), encoding="utf-8")
        command = [sys.executable, "-m", "raysys", "pack", str(path), "--json"]
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
    if finished.returncode:
        raise ClusterError(f"raysys pack: exit status {finished.returncode}: {finished.stderr[-300:]}")
    outcome = json.loads(finished.stdout)
    assert outcome["num_items"] > 0, outcome
    return Measurement(num_items / outcome["seconds"], {"seconds": outcome["seconds"]})


def pack_unchecked(table: Path, items_per_shard: int) -> Measurement:
    """Write the photo and title of every row into tars, in one process."""
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=table.parent) as folder,
        webdataset.ShardWriter(f"{folder}/%05d.tar", maxcount=items_per_shard, verbose=0) as writer,
    ):
        for row in _rows(table):
            fields = {"item_id": row["item_id"], "title": row["title"]}
            photo = (table.parent / row["image"]).read_bytes()
            writer.write({"__key__": row["item_id"], "jpg": photo, "json": fields})
    return _measurement(writer.total, started)


def decode_all(table: Path, cores: int) -> Measurement:
    """Read and decode every photo, in one process per core; the pixels are discarded."""
    paths = [table.parent / row["image"] for row in _rows(table)]
    # Processes are forked and warmed up before the clock starts, so that only the work is measured.
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        pool.map(_decode, paths[:cores], chunksize=1)
        started = time.monotonic()
        num_items = sum(pool.imap_unordered(_decode, paths, chunksize=64))
        return _measurement(num_items, started)


def _decode(path: Path) -> int:
    decode_image(path.read_bytes())
    return 1


def _measurement(num_items: int, started: float) -> Measurement:
    seconds = time.monotonic() - started
    return Measurement(num_items / seconds, {"seconds": seconds})


def _pack_settings(table: Path, config: BenchRunConfig, root: str) -> dict[str, object]:
    settings = config.model_dump(mode="json", include={"pack", "ray"})
    columns = {"attributes": {"seller": "text"}}
    return {**settings, "root": root, "catalog": {"kind": "table", "path": str(table), "columns": columns}}


def _render_photos(folder: Path, size_px: int) -> list[Path]:
    """The distinct photos; every catalogue repeats them."""
    folder.mkdir()
    paths = []
    for item in generate_items(_NUM_DISTINCT_PHOTOS, _SEED):
        paths.append(folder / f"{item.item_id}.jpg")
        paths[-1].write_bytes(render_item(item, size_px))
    return paths


def _write_catalogue(folder: Path, photos: Sequence[Path], num_items: int) -> Path:
    """A CSV with distinct ids and titles; its photos are hard links to the rendered ones."""
    (folder / "images").mkdir(parents=True)
    items = generate_items(_NUM_DISTINCT_PHOTOS, _SEED)
    table = folder / "items.csv"
    with table.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(["item_id", "title", "image", "seller"])
        for number, item, photo in zip(
            range(num_items), itertools.cycle(items), itertools.cycle(photos), strict=False
        ):
            name = f"images/{number:07d}.jpg"
            os.link(photo, folder / name)
            writer.writerow(
                [f"i{number:07d}", f"{item.title} {number}", name, f"{item.seller}-{number % 997}"]
            )
    return table


def _rows(table: Path) -> Iterator[dict[str, str]]:
    with table.open(encoding="utf-8", newline="") as stream:
        yield from csv.DictReader(stream)


def _num_cores(config: BenchRunConfig) -> int:
    return min(config.ray.num_cpus or sys.maxsize, os.cpu_count() or 1)
