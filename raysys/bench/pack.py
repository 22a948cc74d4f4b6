"""`raysys pack` from the outside: items a second and memory, on a catalogue of many small photos.

The peer is webdataset's writer in a loop that checks nothing; the limit is the one thing that a checked
catalogue cannot do without, reading and decoding every photo, on the same cores.
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

from raysys.bench.measure import Case, Finding, Standing, Trial
from raysys.config import Config
from raysys.encoder.preprocess import decode_image
from raysys.errors import ClusterError
from raysys.synth import generate_items, render_item

OURS, PEER, LIMIT = "raysys pack", "webdataset.ShardWriter, unchecked", "read and decode alone"
_SEED = 7
_DISTINCT = 300
_FUTURE_ITEMS, _FUTURE_CORES = 1_000_000, 16


def cases(config: Config, folder: Path) -> Iterator[Case]:
    """A catalogue of every size that is asked for."""
    photos = _draw_photos(folder / "drawn", config.bench.photo_px)
    for num_items in config.bench.pack_items:
        table = _make_catalogue(folder / f"{num_items}", photos, num_items)
        contenders: dict[str, Callable[[], Trial]] = {
            OURS: partial(pack_with_raysys, table, config, num_items),
            PEER: partial(pack_unchecked, table, config.pack.items_per_shard),
            LIMIT: partial(decode_all, table, _num_cores(config)),
        }
        facts = {"num_items": num_items, "cores": _num_cores(config), "photo_px": config.bench.photo_px}
        yield Case(f"{num_items:,} items", "items/s", contenders, PEER, LIMIT, facts)


def conclusions(findings: Sequence[Finding]) -> list[str]:
    """The projection to a million items on sixteen cores, with its arithmetic."""
    few, many = findings[0].facts["num_items"], findings[-1].facts["num_items"]
    few_s, many_s = (finding.facts["num_items"] / _ours(finding).rate.median for finding in _ends(findings))
    cores = findings[-1].facts["cores"]
    if few < many:
        per_item_s = (many_s - few_s) / (many - few)
        how = (
            f"{few:,.0f} items took {few_s:.1f} s and {many:,.0f} took {many_s:.1f} s: "
            f"({many_s:.1f} - {few_s:.1f}) s / {many - few:,.0f}"
        )
    else:
        per_item_s = many_s / many
        how = f"{many:,.0f} items took {many_s:.1f} s: {many_s:.1f} s / {many:,.0f}"
    start_s = many_s - many * per_item_s
    future_s = start_s + _FUTURE_ITEMS * per_item_s * cores / _FUTURE_CORES
    grown = _ours(findings[-1]).peak_memory_bytes - _ours(findings[0]).peak_memory_bytes
    return [
        f"{how} = {per_item_s * 1e6:.0f} us an item on {cores:.0f} cores, after {start_s:.1f} s of start",
        f"{_FUTURE_ITEMS:,} items on {_FUTURE_CORES} cores, if the cores stay the bound: {start_s:.1f} s + "
        f"{_FUTURE_ITEMS:,} x {per_item_s * 1e6:.0f} us x {cores:.0f} / {_FUTURE_CORES} = {future_s:.0f} s",
        f"peak memory grew by {grown / 1e6:.0f} MB over {many - few:,.0f} items",
    ]


def pack_with_raysys(table: Path, config: Config, num_items: int) -> Trial:
    """The command itself, in a process of its own, into a fresh root; Ray's start is in its time."""
    with tempfile.TemporaryDirectory(dir=table.parent) as folder:
        path = Path(folder) / "pack.yaml"
        path.write_text(yaml.safe_dump(_pack_settings(table, config, f"{folder}/root")), encoding="utf-8")
        command = [sys.executable, "-m", "raysys", "pack", str(path), "--json"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClusterError(f"raysys pack: exit status {done.returncode}: {done.stderr[-300:]}")
    outcome = json.loads(done.stdout)
    assert outcome["num_items"] > 0, outcome
    return Trial(num_items / outcome["seconds"], {"seconds": outcome["seconds"]})


def pack_unchecked(table: Path, items_per_shard: int) -> Trial:
    """What a script would do: every row's photo and title into tars, in one process."""
    started = time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=table.parent) as folder,
        webdataset.ShardWriter(f"{folder}/%05d.tar", maxcount=items_per_shard, verbose=0) as writer,
    ):
        for row in _rows(table):
            said = {"item_id": row["item_id"], "title": row["title"]}
            photo = (table.parent / row["image"]).read_bytes()
            writer.write({"__key__": row["item_id"], "jpg": photo, "json": said})
    return _trial(writer.total, started)


def decode_all(table: Path, cores: int) -> Trial:
    """Read and decode every photo, as many processes as cores; nothing is kept."""
    paths = [table.parent / row["image"] for row in _rows(table)]
    # Forked and warm before the clock starts, so that only the work is measured.
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        pool.map(_decode, paths[:cores], chunksize=1)
        started = time.monotonic()
        num_items = sum(pool.imap_unordered(_decode, paths, chunksize=64))
        return _trial(num_items, started)


def _decode(path: Path) -> int:
    decode_image(path.read_bytes())
    return 1


def _ends(findings: Sequence[Finding]) -> tuple[Finding, Finding]:
    return findings[0], findings[-1]


def _ours(finding: Finding) -> Standing:
    return finding.contenders[OURS]


def _trial(num_items: int, started: float) -> Trial:
    seconds = time.monotonic() - started
    return Trial(num_items / seconds, {"seconds": seconds})


def _pack_settings(table: Path, config: Config, root: str) -> dict[str, object]:
    said = config.model_dump(mode="json", include={"pack", "ray"})
    columns = {"attributes": {"seller": "text"}}
    return {**said, "root": root, "catalog": {"kind": "table", "path": str(table), "columns": columns}}


def _draw_photos(folder: Path, size_px: int) -> list[Path]:
    """Some hundred distinct photos, which stand for as many items as are wanted."""
    folder.mkdir()
    paths = []
    for item in generate_items(_DISTINCT, _SEED):
        paths.append(folder / f"{item.item_id}.jpg")
        paths[-1].write_bytes(render_item(item, size_px))
    return paths


def _make_catalogue(folder: Path, photos: Sequence[Path], num_items: int) -> Path:
    """A CSV of distinct ids and titles; their photos are hard links to those that were drawn."""
    (folder / "images").mkdir(parents=True)
    items = generate_items(_DISTINCT, _SEED)
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


def _num_cores(config: Config) -> int:
    return min(config.ray.num_cpus or sys.maxsize, os.cpu_count() or 1)
