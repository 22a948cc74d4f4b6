"""Write tars as img2dataset does, without img2dataset.

The layout follows the output of img2dataset 1.47.0 with webdataset 0.2.111 (`--output_format webdataset
--compute_hash sha256 --save_additional_columns '["sku"]'`), compared byte by byte: per sample a jpg, a json with
an indent of four and a txt, each behind an extended header with its time in fractions of a second, keys not in
order, photos that could not be downloaded only in the Parquet file beside the tar.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

TIME_S = 1795670891.1045702


@dataclass(frozen=True)
class Download:
    """A row of the list of URLs, and its photo after the download; None if that failed."""

    caption: str | None
    sku: str
    photo: bytes | None
    status: str = "success"


def write_img2dataset(
    folder: Path, *shards: Sequence[Download], digits: int = 4, time_s: float = TIME_S
) -> list[Path]:
    """Write one tar, one Parquet file and one statistics file a shard. Returns the paths of the tars."""
    folder.mkdir(parents=True, exist_ok=True)
    return [
        _write_shard(folder, f"{number:05d}", downloads, digits, time_s)
        for number, downloads in enumerate(shards)
    ]


def _write_shard(folder: Path, name: str, downloads: Sequence[Download], digits: int, time_s: float) -> Path:
    rows = [_metadata(f"{name}{number:0{digits}d}", download) for number, download in enumerate(downloads)]
    path = folder / f"{name}.tar"
    with tarfile.open(path, "w") as tar:  # in Python, extended headers are the default
        for row, download in zip(rows, downloads, strict=True):
            if download.photo is not None:
                add_member(tar, f"{row['key']}.jpg", download.photo, time_s)
                add_member(tar, f"{row['key']}.json", json.dumps(row, indent=4).encode(), time_s)
                add_member(tar, f"{row['key']}.txt", (download.caption or "").encode(), time_s)
    pq.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    num_successes = sum(download.photo is not None for download in downloads)
    statistics = {"count": len(rows), "successes": num_successes, "duration": 0.03}
    (folder / f"{name}_stats.json").write_text(json.dumps(statistics, indent=4))
    return path


def add_member(tar: tarfile.TarFile, name: str, data: bytes, time_s: float = TIME_S) -> None:
    """Append a file as webdataset's writer does."""
    member = tarfile.TarInfo(name)
    member.size, member.mtime, member.mode = len(data), time_s, 0o444
    member.uname = member.gname = "bigdata"
    tar.addfile(member, io.BytesIO(data))


def _metadata(key: str, download: Download) -> dict[str, object]:
    row: dict[str, object] = {
        "sku": download.sku,
        "caption": download.caption,
        "url": f"http://127.0.0.1:8765/{download.sku}.jpg",
        "key": key,
        "status": "success" if download.photo is not None else "failed_to_download",
        "error_message": None if download.photo is not None else "HTTP Error 404: File not found",
        "width": None,
        "height": None,
        "original_width": None,
        "original_height": None,
        "exif": None,
        "sha256": None,
    }
    if download.photo is not None:
        width, height = Image.open(io.BytesIO(download.photo)).size
        row |= {"width": width, "height": height, "original_width": 2 * width, "original_height": 2 * height}
        row |= {"exif": "{}", "sha256": hashlib.sha256(download.photo).hexdigest()}
    return row
