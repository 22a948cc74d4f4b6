"""A WebDataset as img2dataset writes it, through every stage; the index reads photos from its tars."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from raysys.errors import DamagedData
from raysys.index.search import Searcher
from raysys.index.shelf import shelf
from tests.e2e.small import DEMO, NAME, run_raysys, write_config
from tests.img2dataset_tars import Download, write_img2dataset

COLOURS = ("red", "green", "blue", "white")
SHAPES = ("rectangle", "ellipse")


def drawn(number: int) -> Download:
    """A photo of one shape and one colour; the seventh is damaged."""
    colour, shape = COLOURS[number % 4], SHAPES[number // 4 % 2]
    photo = Image.new("RGB", (48, 48), "grey")
    getattr(ImageDraw.Draw(photo), shape)((8, 8 + number % 9, 30 + number % 7, 36), fill=colour)
    data = io.BytesIO()
    photo.save(data, "JPEG")
    content = data.getvalue()[:-150] if number == 7 else data.getvalue()
    return Download(f"a {colour} {shape} {number}", f"s{number % 16}", content)


@pytest.mark.timeout(600)
def test_webdataset_is_trained_on_and_indexed(tmp_path: Path) -> None:
    tars = write_img2dataset(
        tmp_path / "tars", *([drawn(40 * shard + n) for n in range(40)] for shard in range(2))
    )
    before = [tar.read_bytes() for tar in tars]
    config = write_config(
        tmp_path,
        {
            "extends": str(DEMO.parent / "base.yaml"),
            "catalog": {
                "kind": "webdataset",
                "path": f"{tmp_path}/tars/{{00000..00001}}.tar",
                "columns": {"group": "sha256", "attributes": {"sku": "text"}},
            },
            "pack": {"split": {"kind": "attribute", "attribute": "sku", "val_fraction": 0.2}},
            "train": {
                "workers": 1,
                "epochs": 1,
                "batch_size": 16,
                "method": "full",
                "checkpoint_every_epochs": 1,
                "validation": {"max_items": 16, "score": "r@5"},
            },
            "stream": {"max_bad_fraction": 0.1, "decode_concurrency": 1},
            "projection": {"dimensions": None},
            "index": {"kind": "exact"},
            "evaluate": {
                "log": {"kind": "simulated", "queries": 40, "weights": {"sku": 1.0}},
                "attribute_precision": None,
                "bootstrap_samples": 100,
                "neighbour_grid_queries": 1,
            },
        },
    )
    finished = run_raysys("run", str(config), folder=tmp_path, timeout_s=400)
    assert finished.status == 0, finished.stderr
    assert "photos are not read" in finished.stderr
    root = tmp_path / "root"
    manifests = [
        json.loads((root / "shards" / split / "manifest.json").read_text())
        for split in ("train", "val", "test")
    ]
    assert sum(manifest["num_items"] for manifest in manifests) == 80
    assert not list(root.rglob("*.tar"))
    embedded = json.loads(next((root / "embeddings").glob("*/manifest.json")).read_text())
    assert (embedded["num_items"], embedded["num_refused"]) == (79, 1)  # the damaged photo
    assert [tar.read_bytes() for tar in tars] == before

    planned = run_raysys("run", str(config), "--dry-run", folder=tmp_path).stdout.splitlines()
    assert [line for line in planned if "up to date" not in line] == []
    assert len(planned) == 8  # three ShardSets, two encoders, embeddings, index, report

    searcher = Searcher(str(root / "indexes" / NAME))
    first, row = drawn(3), searcher.row_of("000000003")
    assert searcher.item(row).title == first.caption
    assert len(shelf(searcher, searcher.vector(row), 5, query_row=row)) == 5
    assert searcher.photo(row) == first.photo
    tars[0].write_bytes(b"x" * 512 + before[0])
    with pytest.raises(DamagedData, match="has changed at byte"):
        searcher.photo(row)
