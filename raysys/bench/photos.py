"""Synthetic photos of any size with the file size of camera photos, so that benchmarks download nothing.

A rendered item is enlarged and gets the detail that makes camera JPEGs large: smooth changes of brightness,
texture in several octaves and fine grain. At quality 90 this gives 0.2 to 0.5 bytes per pixel, like photos.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import webdataset
from numpy.typing import NDArray
from PIL import Image

from raysys import artifacts
from raysys.artifacts import ArtifactSpec, FileEntry, ShardEntry, ShardSetManifest
from raysys.columns import ATTRIBUTES, ITEM_ID, TITLE
from raysys.synth import DrawnItem, generate_items, render_item

_QUALITY = 90
_RENDERED_PX = 256
_OCTAVES = ((4, 14.0), (16, 10.0), (64, 8.0), (256, 6.0))  # cells per side, strength in grey levels
_GRAIN = 5.0


def make_shard_set(
    folder: Path, megapixels: float, *, num_items: int, num_distinct: int, items_per_shard: int, seed: int
) -> str:
    """Write a ShardSet of photos of one size and return its URI; its items share `num_distinct` photos."""
    items = generate_items(num_items, seed)
    photos = [photo_like(item, megapixels, seed + number) for number, item in enumerate(items[:num_distinct])]
    folder.mkdir(parents=True)
    shards = [
        _write_shard(
            folder, f"{start // items_per_shard:05d}.tar", items[start : start + items_per_shard], photos
        )
        for start in range(0, num_items, items_per_shard)
    ]
    files = {shard.name: FileEntry(bytes=shard.bytes, sha256=shard.sha256) for shard in shards}
    spec = ArtifactSpec(str(folder), ShardSetManifest, {}, {})
    manifest = ShardSetManifest(
        **artifacts.common_fields(spec, files, num_items, 0.0),
        split="train",
        shards=shards,
        item_schema={"seller": "text"},
        num_rows=num_items,
        num_refused=0,
        refused_by_reason={},
    )
    artifacts.publish(str(folder), manifest)
    return str(folder)


def photo_like(item: DrawnItem, megapixels: float, seed: int) -> bytes:
    """A JPEG (4:3) of a synthetic item with the detail of a camera photo."""
    height = round((megapixels * 1e6 * 3 / 4) ** 0.5)
    size = (height * 4 // 3, height)
    rng = np.random.default_rng(seed)
    with Image.open(io.BytesIO(render_item(item, _RENDERED_PX))) as rendered:
        pixels = np.asarray(rendered.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.int16)
    encoded = io.BytesIO()
    texture = _texture(size, rng)[:, :, None]
    Image.fromarray((pixels + texture).clip(0, 255).astype(np.uint8)).save(encoded, "JPEG", quality=_QUALITY)
    return encoded.getvalue()


def _texture(size: tuple[int, int], rng: np.random.Generator) -> NDArray[np.int16]:
    """Differences in brightness: octaves of smooth noise, and grain in every pixel."""
    total = rng.standard_normal(size[::-1], dtype=np.float32) * np.float32(_GRAIN)
    for cells, strength in _OCTAVES:
        if cells < max(size):
            coarse = rng.standard_normal((cells * 3 // 4, cells), dtype=np.float32) * np.float32(strength)
            total += np.asarray(Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC))
    return total.astype(np.int16)


def _write_shard(folder: Path, name: str, items: Sequence[DrawnItem], photos: Sequence[bytes]) -> ShardEntry:
    tar = io.BytesIO()
    with webdataset.TarWriter(tar, mtime=0, encoder=False) as writer:
        for item in sorted(items, key=lambda item: item.item_id):
            fields = {ITEM_ID: item.item_id, TITLE: item.title, ATTRIBUTES: {"seller": item.seller}}
            photo = photos[item.object_seed % len(photos)]
            writer.write(
                {"__key__": item.item_id, "jpg": photo, "json": artifacts.canonical_json(fields).encode()}
            )
    data = tar.getvalue()
    (folder / name).write_bytes(data)
    return ShardEntry(
        name=name, num_items=len(items), bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )
