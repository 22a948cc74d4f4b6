"""Check a sample: decode its photo, parse its json and txt. Memory holds one sample at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import IO

from raysys import storage
from raysys.columns import ATTRIBUTES, ITEM_ID, TITLE
from raysys.encoder.preprocess import decode_image
from raysys.errors import DamagedData, UnreadableImage
from raysys.shards import tar
from raysys.shards.reader import ShardRef
from raysys.shards.shard_set import TITLE_KEYS, tombstoned_keys
from raysys.shards.tar import Fault, Member, Sample
from raysys.verify.health import Finding, FindingKind

_MAX_MEMBER_BYTES = 256 << 20  # larger photos and texts are not read: they would fill the memory


def live_samples(shard: ShardRef, stream: IO[bytes]) -> tuple[list[Sample], list[Finding]]:
    """The samples of an open shard without the tombstoned ones, and the findings about the tar itself."""
    members, tar_faults = tar.scan(stream)
    samples, sample_faults = tar.group_samples(members)
    findings = [_to_finding(shard, fault) for fault in (*tar_faults, *sample_faults)]
    num_expected = shard.num_items + shard.num_tombstones
    if shard.has_manifest and len(samples) != num_expected:
        detail = f"{len(samples)} items, but its manifest states {num_expected}"
        findings.append(Finding("wrong_num_items", shard.uri, detail))
    removed = _tombstoned_keys(shard)
    return [sample for sample in samples if sample.key not in removed], findings


def check_sample(shard: ShardRef, stream: IO[bytes], sample: Sample, max_pixels: int) -> list[Finding]:
    """The findings about a sample, first of its photo, then of its text; empty if it is intact."""
    finding = partial(_sample_finding, shard, sample)
    photo = sample.photo()
    if photo is None:
        findings = [finding("no_photo", None, f"members: {', '.join(sample.members)}")]
    else:
        findings = [finding(*problem) for problem in _check_photo(stream, photo, max_pixels)]
    return findings + [finding(*problem) for problem in _check_texts(stream, sample, shard.has_manifest)]


def read_member(stream: IO[bytes], member: Member, max_bytes: int | None = None) -> bytes:
    """The content of a member of an open tar.

    Raises: ValueError if it has more than `max_bytes` bytes.
    """
    if max_bytes is not None and member.num_bytes > max_bytes:
        raise ValueError(f"{member.num_bytes} bytes are too many for a text")
    stream.seek(member.offset)
    return stream.read(member.num_bytes)


def printable(text: str) -> str:
    """The text with bytes that are not UTF-8 written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _check_photo(
    stream: IO[bytes], photo: Member, max_pixels: int
) -> Iterator[tuple[FindingKind, Member, str]]:
    if photo.num_bytes > _MAX_MEMBER_BYTES:
        yield "unreadable_photo", photo, f"{photo.num_bytes} bytes are too many for a photo"
        return
    try:
        decode_image(read_member(stream, photo), max_pixels=max_pixels)
    except UnreadableImage as error:
        yield (
            "too_many_pixels" if error.reason == "too_many_pixels" else "unreadable_photo",
            photo,
            f"{photo.name}: {error}",
        )
    except Exception as error:  # on damaged bytes, Pillow's plugins raise errors of any type
        yield "unreadable_photo", photo, f"{photo.name}: {type(error).__name__}: {error}"


def _check_texts(
    stream: IO[bytes], sample: Sample, has_manifest: bool
) -> Iterator[tuple[FindingKind, Member | None, str]]:
    json_member, txt_member = sample.members.get("json"), sample.members.get("txt")
    if json_member is None and (txt_member is None or has_manifest):
        yield "no_text", None, f"members: {', '.join(sample.members)}"
        return
    titles: list[str] = []
    is_readable = True
    for member, titles_in in ((json_member, _titles_in_json), (txt_member, _title_in_txt)):
        if member is None:
            continue
        try:
            titles += titles_in(read_member(stream, member, _MAX_MEMBER_BYTES), has_manifest)
        except (ValueError, RecursionError) as error:
            is_readable = False
            yield "bad_json" if member is json_member else "bad_text", member, f"{member.name}: {error}"
    if is_readable and not any(title.strip() for title in titles):
        detail = f"no text in {' or '.join(TITLE_KEYS)} of json, or in txt"
        yield "empty_title", json_member or txt_member, detail


def _titles_in_json(data: bytes, has_manifest: bool) -> list[str]:
    fields = json.loads(data)
    if not isinstance(fields, dict):
        raise ValueError(f"expected an object, got {type(fields).__name__}")
    if missing := [key for key in (ITEM_ID, TITLE, ATTRIBUTES) if has_manifest and key not in fields]:
        raise ValueError(f"no {', '.join(missing)}")
    return [str(fields[key]) for key in TITLE_KEYS if fields.get(key)]


def _title_in_txt(data: bytes, _: bool) -> list[str]:
    return [data.decode()]


def _sample_finding(
    shard: ShardRef, sample: Sample, kind: FindingKind, member: Member | None, detail: str
) -> Finding:
    """A finding at a member of a sample, or at its first member."""
    at = member or next(iter(sample.members.values()))
    return Finding(kind, shard.uri, printable(detail), printable(sample.key), at.offset)


def _to_finding(shard: ShardRef, fault: Fault) -> Finding:
    is_damage = fault.kind != "unsorted" or shard.has_manifest
    return Finding(
        fault.kind, shard.uri, printable(fault.detail), printable(fault.key), fault.offset, is_damage
    )


def _tombstoned_keys(shard: ShardRef) -> set[str]:
    if shard.tombstones_uri is None or not storage.exists(shard.tombstones_uri):
        return set()
    try:
        return tombstoned_keys(shard.tombstones_uri, shard.uri)
    except DamagedData:  # reported as a `wrong_file` of the set
        return set()
