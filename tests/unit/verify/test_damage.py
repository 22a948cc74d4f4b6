"""Random damage to a shard: every sample whose bytes are still in the tar is in the repaired copy."""

from __future__ import annotations

import io
import random
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from raysys.errors import DamagedData
from raysys.shards.reader import ShardRef
from raysys.verify.find import find_sources
from raysys.verify.repair import repair
from raysys.verify.shard_checks import verify, verify_shard

NUM_SAMPLES = 6
BLOCK = 512


def noise(rng: random.Random) -> bytes:
    """A photo of 1 to 4 kB."""
    side_px = rng.randrange(16, 40)
    data = io.BytesIO()
    Image.frombytes("RGB", (side_px, side_px), rng.randbytes(3 * side_px**2)).save(data, "JPEG")
    return data.getvalue()


def make_shard(rng: random.Random, prefix: str) -> bytes:
    """A tar in one of three formats; long names have extended headers."""
    tar = io.BytesIO()
    tar_format = rng.choice([tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
    long = "long" * 30 if tar_format != tarfile.USTAR_FORMAT and rng.random() < 0.5 else ""
    with tarfile.open(fileobj=tar, mode="w", format=tar_format) as archive:
        for number in range(NUM_SAMPLES):
            for suffix, data in (
                ("jpg", noise(rng)),
                ("txt", f"cup {prefix}{number} ".encode() * rng.randrange(1, 200)),
            ):
                info = tarfile.TarInfo(f"{long}{prefix}{number}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return tar.getvalue()


def damage(rng: random.Random, data: bytes, other: bytes) -> bytes:
    """One kind of damage: zeros, a cut, a flipped byte, another tar behind it, a repeated member."""
    kind = rng.choice(["zeros", "zeros", "cut", "flip", "append", "append_after_cut", "repeat"])
    changed = bytearray(data)
    start = rng.randrange(BLOCK, len(data))
    if kind == "zeros":
        stop = min(len(data), start + rng.choice([1, 100, BLOCK, 3000, 9000]))
        changed[start:stop] = bytes(stop - start)
    elif kind == "cut":
        del changed[start:]
    elif kind == "flip":
        changed[start] ^= 1 << rng.randrange(8)
    elif kind == "append":
        changed += bytes(-len(changed) % BLOCK) + other
    elif kind == "append_after_cut":
        del changed[start - start % BLOCK :]
        extended = changed[-2 * BLOCK :]  # at the end, an extended header would name the member behind it
        if b"PaxHeader" not in extended and b"LongLink" not in extended:
            changed += other
    elif len(changed) > 6 * BLOCK:  # every block from one header to the next one, again
        headers = [p for p in range(0, len(data), BLOCK) if data[p + 257 : p + 262] == b"ustar"]
        first = rng.randrange(len(headers) - 1)
        changed += data[headers[first] : headers[min(first + 2, len(headers) - 1)]]
    return bytes(changed)


def contents(data: bytes) -> dict[str, dict[str, bytes]]:
    """Key -> suffix -> bytes, of an undamaged tar."""
    samples: dict[str, dict[str, bytes]] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for info in archive:
            key, _, suffix = info.name.partition(".")
            member = archive.extractfile(info)
            assert member
            samples.setdefault(key, {})[suffix] = member.read()
    return samples


def stored_members(data: bytes) -> list[tuple[str, bytes]]:
    """Key, and all bytes of a member from its (extended) headers to the end of its content."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return [
            (info.name.partition(".")[0], data[info.offset : info.offset_data + info.size])
            for info in archive
        ]


def is_stored(part: bytes, data: bytes) -> bool:
    """Whether the bytes are in the tar, where a header may be."""
    position = data.find(part)
    while position >= 0 and position % BLOCK:
        position = data.find(part, position + 1)
    return position >= 0


@pytest.mark.parametrize("seed", range(80))
def test_every_sample_whose_bytes_are_in_the_tar_is_in_the_copy(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    intact, other = make_shard(rng, "a"), make_shard(rng, "b")
    damaged = intact
    for _ in range(rng.randrange(1, 4)):
        damaged = damage(rng, damaged, other)
    path = tmp_path / "in" / "1.tar"
    path.parent.mkdir()
    path.write_bytes(damaged)
    is_complete: dict[str, bool] = {}
    for key, part in [*stored_members(intact), *stored_members(other)]:
        is_complete[key] = is_complete.get(key, True) and is_stored(part, damaged)
    expected = {key for key, complete in is_complete.items() if complete}

    sources = find_sources([str(path)])
    result = verify(sources, map, max_pixels=10**6)
    try:
        summary = repair(sources, f"{tmp_path}/out", result.repeats, map, max_pixels=10**6)
    except DamagedData:
        assert not expected
        return
    copy = contents((tmp_path / "out" / "1.tar").read_bytes())
    samples = contents(intact) | contents(other)
    assert {key: copy.get(key) for key in expected} == {key: samples[key] for key in expected}
    assert len(copy) == summary.num_kept
    assert verify_shard(ShardRef(f"{tmp_path}/out/1.tar"), max_pixels=10**6).counts == {}
    if damaged.rstrip(b"\0") != intact.rstrip(b"\0") and expected != set(samples):
        assert result.shards[0].num_damage_findings or is_undetectable(copy, samples)


def is_undetectable(copy: dict[str, dict[str, bytes]], samples: dict[str, dict[str, bytes]]) -> bool:
    """A change inside of a photo or a text that can still be decoded, or zeros up to the end of the file."""
    return copy != samples
