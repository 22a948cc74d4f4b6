"""Factories that several tests share: photos, shards, a small checkpoint."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
import webdataset
from PIL import Image

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.columns import item_hash
from raysys.config.schema import ScratchConfig
from raysys.encoder.bundle import publish_bundle
from raysys.encoder.scratch import build_scratch
from raysys.encoder.text import TextPreprocessing
from raysys.shards.reader import Item, ShardRef
from raysys.shards.tar import key_of

TINY = ScratchConfig(
    image_size_px=16, hidden_size=16, num_layers=1, num_heads=2, text_num_layers=1, vocab_size=60, max_length=6
)  # fmt: skip


def photo(colour: str | tuple[int, int, int] = "red", size: tuple[int, int] = (8, 8)) -> bytes:
    """A JPEG of one colour."""
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "JPEG")
    return data.getvalue()


def tiny_checkpoint(folder: Path, titles: Sequence[str], size: ScratchConfig = TINY) -> str:
    """A SigLIP of a few thousand parameters with a tokenizer trained on the titles. Returns its path."""
    build_scratch(folder, list(titles), size, seed=7)
    return str(folder)


def save_vision_model(folder: Path, *, seed: int = 0, mean: float = 0.5) -> str:
    """A random vision transformer of Hugging Face for photos of 16 x 16 pixels. Returns its path."""
    torch.manual_seed(seed)
    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    transformers.ViTModel(transformers.ViTConfig(**size, image_size=16, patch_size=8)).save_pretrained(folder)
    processor = transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}, image_mean=[mean] * 3)
    processor.save_pretrained(folder)
    return str(folder)


def tiny_bundle(
    folder: Path,
    titles: Sequence[str],
    seed: int = 7,
    bias: float = TINY.logit_bias,
    size: ScratchConfig = TINY,
) -> str:
    """The same checkpoint published as an EncoderBundle. Returns its path."""
    spec = ArtifactSpec(str(folder), EncoderBundleManifest, {}, {})
    size = size.model_copy(update={"logit_bias": bias})
    text = TextPreprocessing(max_length=size.max_length)
    publish_bundle(spec, lambda draft: build_scratch(draft, list(titles), size, seed=seed), text=text)
    return str(folder)


def tar_of(items: Sequence[Item]) -> bytes:
    """The bytes of a shard as `raysys pack` writes it."""
    tar = io.BytesIO()
    with webdataset.TarWriter(tar, mtime=0, encoder=False) as writer:
        for item in items:
            sample = {"item_id": item.item_id, "title": item.title, "attributes": item.attributes}
            sample |= {"group": item.group} if item.group else {}
            text = artifacts.canonical_json(sample).encode()
            writer.write({"__key__": key_of(item.item_id), "jpg": item.image, "json": text})
    return tar.getvalue()


def write_shard(
    folder: Path | str, items: Sequence[Item], name: str = "00000.tar", split: str = "train"
) -> ShardRef:
    """Write a shard with its items table. Returns its entry as a manifest would describe it."""
    data = tar_of(items)
    storage.write_bytes(f"{folder}/{name}", data)
    write_items_table(folder, {name: items})
    return ShardRef(f"{folder}/{name}", split, len(items), len(data), storage.sha256_of_bytes(data))


def write_shards(folder: Path | str, items: Sequence[Item], items_per_shard: int) -> list[ShardRef]:
    """Write items into shards of at most `items_per_shard` items, with one items table."""
    parts = [items[start : start + items_per_shard] for start in range(0, len(items), items_per_shard)]
    named = {f"{number:05d}.tar": part for number, part in enumerate(parts)}
    shards = [write_shard(folder, part, name) for name, part in named.items()]
    write_items_table(folder, named)
    return shards


def write_items_table(folder: Path | str, shards: Mapping[str, Sequence[Item]]) -> None:
    """Write the items table that `raysys pack` writes beside its shards."""
    rows = [
        {
            "item_id": item.item_id,
            "shard": name,
            "item_hash": item_hash(
                hashlib.sha256(item.image).digest(), item.title, artifacts.canonical_json(item.attributes)
            ),
        }
        for name, items in shards.items()
        for item in items
    ]
    schema = pa.schema([("item_id", pa.string()), ("shard", pa.string()), ("item_hash", pa.binary(32))])
    with storage.writable_file(f"{folder}/items.parquet") as path:
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)
