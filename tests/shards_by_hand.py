"""Write WebDataset shards by hand, and damage them byte by byte."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import webdataset
from PIL import Image

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, ShardEntry, ShardSetManifest
from raysys.shards import tar
from raysys.shards.reader import ShardRef
from raysys.shards.tar import Member

Sample: TypeAlias = dict[str, bytes | str]


def photo(colour: str = "red", side_px: int = 8, kind: str = "JPEG") -> bytes:
    """A small photo of one colour."""
    data = io.BytesIO()
    Image.new("RGB", (side_px, side_px), colour).save(data, kind)
    return data.getvalue()


def raysys_sample(key: str, title: str = "a cup") -> Sample:
    """A sample as `raysys pack` writes it."""
    fields = {"item_id": key, "title": title, "attributes": {}}
    return {"__key__": key, "jpg": photo(), "json": json.dumps(fields).encode()}


def foreign_sample(key: str, text: str = "a cup") -> Sample:
    """A sample as many other tools write it."""
    return {"__key__": key, "jpg": photo(), "txt": text.encode()}


def tar_of(samples: Sequence[Mapping[str, bytes | str]]) -> bytes:
    """The bytes of a WebDataset tar with these samples, in this order."""
    data = io.BytesIO()
    with webdataset.TarWriter(data, mtime=0, encoder=False) as writer:
        for sample in samples:
            writer.write(dict(sample))
    return data.getvalue()


def write_tar(path: Path, samples: Sequence[Mapping[str, bytes | str]]) -> Path:
    """Write the tar and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_of(samples))
    return path


def members_of(path: Path) -> dict[str, Member]:
    """Name -> member, of an undamaged tar."""
    with path.open("rb") as stream:
        members, _ = tar.scan(stream)
    return {member.name: member for member in members}


def flip(path: Path, offset: int) -> None:
    """Invert one byte."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 0xFF
    path.write_bytes(data)


def cut(path: Path, num_bytes: int) -> None:
    """Truncate the file to its first `num_bytes` bytes."""
    path.write_bytes(path.read_bytes()[:num_bytes])


def write_shard_set(folder: Path, *shards: Sequence[str], split: str = "train") -> ShardSetManifest:
    """Write a ShardSet with one shard for each sequence of keys."""
    ledger = folder / "ledger.parquet"
    names = [f"{number:05d}.tar" for number in range(len(shards))]
    for name, keys in zip(names, shards, strict=True):
        write_tar(folder / name, [raysys_sample(key) for key in keys])
    folder.mkdir(parents=True, exist_ok=True)
    ledger.write_bytes(b"a ledger")
    files = artifacts.describe_files(str(folder))
    entries = [
        ShardEntry(name=name, num_items=len(keys), bytes=files[name].bytes, sha256=files[name].sha256)
        for name, keys in zip(names, shards, strict=True)
    ]
    num_items = sum(map(len, shards))
    spec = ArtifactSpec(str(folder), ShardSetManifest, {"split": split}, {})
    return artifacts.publish(
        str(folder),
        ShardSetManifest(
            **artifacts.common_fields(spec, files, num_items, 0.0),
            split=split,
            shards=entries,
            item_schema={},
            num_rows=num_items,
            num_refused=0,
            refused_by_reason={},
        ),
    )


def shard_ref(path: Path, num_items: int) -> ShardRef:
    """The shard with what a manifest would state about its current bytes."""
    num_bytes, sha256 = storage.sha256_of(str(path))
    return ShardRef(str(path), "train", num_items, num_bytes, sha256)
