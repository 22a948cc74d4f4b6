"""Write the catalogue that the shipped start was trained on: real photos and drawn ones in one table.

    python -m raysys.synth.pretraining FOLDER --real CATALOGUE [--real CATALOGUE ...]

A real catalogue is a folder with `items.csv` (item_id, title, title_ja, image, split, seller, category_fine,
colour) and `imagenet_vectors.parquet` (item_id, embedding); its items of the split `train` are taken, each
with its English and its Japanese title. Drawn items have other seeds than the demo, so other sellers, and
none of the kinds in `HELD_OUT_KINDS`, so that the demo shows what fine-tuning adds.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import starmap
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from raysys.columns import EMBEDDING, ITEM_ID
from raysys.parallel import Parallel
from raysys.synth.items import DrawnItem, generate_items
from raysys.synth.scene import render_item

SEEDS = range(101, 127)  # the demo's is 7
ITEMS_PER_SEED = 1000
_SIZE_PX = 96
_SPLITS = {125: "val", 126: "test"}  # of seeds; the others train
_COLUMNS = (ITEM_ID, "title", "image", "split", "seller", "category_fine", "colour")
_JAPANESE = "-ja"  # after the item id of the listing with the Japanese title


def write_catalog(folder: Path, real: Sequence[Path], parallel: Parallel) -> int:
    """Write `items.csv`, `images/` and `teacher.parquet` to `folder`; the number of listings."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    drawn = [(seed, item) for seed in SEEDS for item in generate_items(ITEMS_PER_SEED, seed)]
    list(parallel(partial(_draw, folder), [item for _, item in drawn]))
    rows = [*starmap(_drawn_row, drawn), *(row for source in real for row in _real_rows(source))]
    with (folder / "items.csv").open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    _write_teacher(folder / "teacher.parquet", real)
    return len(rows)


def _draw(folder: Path, item: DrawnItem) -> None:
    (folder / _drawn_image(item)).write_bytes(render_item(item, _SIZE_PX))


def _drawn_image(item: DrawnItem) -> str:
    return f"images/{item.item_id}.jpg"


def _drawn_row(seed: int, item: DrawnItem) -> tuple[str, ...]:
    split = _SPLITS.get(seed, "train")
    seller = f"{seed}-{item.seller}"
    return (item.item_id, item.title, _drawn_image(item), split, seller, item.kind, item.colour)


def _real_rows(source: Path) -> Iterator[tuple[str, ...]]:
    with (source / "items.csv").open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            if row["split"] == "train":
                rest = (str((source / row["image"]).resolve()), "train")
                labels = (row["seller"], row["category_fine"], row["colour"])
                yield (row[ITEM_ID], row["title"], *rest, *labels)
                yield (row[ITEM_ID] + _JAPANESE, row["title_ja"], *rest, *labels)


def _write_teacher(path: Path, real: Sequence[Path]) -> None:
    table = pa.concat_tables([pq.read_table(source / "imagenet_vectors.parquet") for source in real])
    ids = table.column(ITEM_ID).cast(pa.string())
    japanese = pc.binary_join_element_wise(ids, _JAPANESE, "")
    vectors = table.column(EMBEDDING)
    both = pa.chunked_array([*ids.chunks, *japanese.chunks])
    pq.write_table(pa.table({ITEM_ID: both, EMBEDDING: pa.chunked_array(vectors.chunks * 2)}), path)


def _main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--real", type=Path, action="append", required=True)
    arguments = parser.parse_args()
    with ProcessPoolExecutor() as pool:
        parallel = partial(pool.map, chunksize=100)
        print(write_catalog(arguments.folder, arguments.real, parallel), "listings")


if __name__ == "__main__":
    _main()
