"""Check a sample: decode its photo, parse its json and txt. Memory holds one sample at a time."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

from PIL import Image

from raysys.columns import ATTRIBUTES, IMAGE_BYTES, IMAGE_OFFSET, ITEM_ID, TITLE
from raysys.encoder.fast_jpeg import scan_damage
from raysys.encoder.preprocess import decode_image
from raysys.errors import DamagedData, MissingError, UnreadableImage
from raysys.shards import tar
from raysys.shards.names import PHOTO_SUFFIXES, TEXT_SUFFIXES, split_name
from raysys.shards.open_tar import OpenTar
from raysys.shards.reader import (
    ShardRef,
    hash_of,
    indexed_rows,
    item_hashes,
    live_keys,
    matches_manifest,
    read_indexed_photo,
    read_item,
    read_member,
)
from raysys.shards.samples import Sample, group_samples
from raysys.shards.shard_set import TITLE_KEYS
from raysys.shards.tar import Fault, Member
from raysys.verify.health import Finding, FindingKind

_MAX_MEMBER_BYTES = 256 << 20  # larger photos and texts are not read: they would fill the memory
_MAX_PIXELS = 64_000_000  # of a photo that is decoded to find out where it ends
_REMARKS = ("ignored_member", "compressed")  # no data is lost


@dataclass(frozen=True)
class LiveSamples:
    """The samples of an open shard that are items, and the findings about the tar itself."""

    shard: ShardRef
    stream: IO[bytes]
    samples: list[Sample]
    findings: list[Finding]
    is_unchanged: bool  # has the bytes that the manifest states
    hashes: Mapping[str, bytes] | None  # item id -> hash of the packed item, if the bytes are different
    indexed: Mapping[str, Mapping[str, Any]] | None = None  # item id -> row of the table, of an indexed tar

    def check(self, sample: Sample, max_pixels: int) -> tuple[Sample | None, list[Finding]]:
        """The first intact variant of a sample, or None; and the findings about the preferred variant."""
        preferred, *others = sample.variants()
        problems = self._check_variant(preferred, max_pixels)
        if not problems:
            return preferred, []
        return next((other for other in others if not self._check_variant(other, max_pixels)), None), problems

    def _check_variant(self, sample: Sample, max_pixels: int) -> list[Finding]:
        """The findings about a sample, first of its photo, then of its text; empty if it is intact."""
        finding = partial(_sample_finding, self.shard, sample)
        photo = sample.photo()
        if self.indexed is not None and read_indexed_photo(self.stream, self.indexed[sample.key]) is None:
            return [finding("changed", photo, "the tar has changed since it was indexed; pack again")]
        # As packed, a photo may have an irregular scan. Without a hash to compare with, that is damage.
        is_strict = self.hashes is None and not (self.is_unchanged and self.shard.has_manifest)
        if photo is None:
            findings = [finding("no_photo", None, f"members: {', '.join(sample.members)}")]
        else:
            problems = _check_photo(self.stream, photo, max_pixels, is_strict)
            findings = [finding(*problem) for problem in problems]
        if self.indexed is None:  # else the table has the texts
            texts = _check_texts(self.stream, sample, self.shard.has_manifest)
            findings += [finding(*problem) for problem in texts]
        if not findings and photo is not None and self.hashes is not None:
            item = read_item(self.stream, sample, photo)
            if self.hashes.get(item.item_id) != hash_of(item):
                findings = [
                    finding("changed", None, "photo, title or attributes differ from the packed item")
                ]
        return findings


def live_samples(shard: ShardRef, opened: OpenTar) -> LiveSamples:
    """Read the headers of an open shard, or the table of items for a tar that another tool wrote."""
    if shard.is_indexed:
        return _indexed_samples(shard, opened)
    is_unchanged = shard.has_manifest and matches_manifest(shard, opened.path)
    is_whole = None if is_unchanged else partial(_is_whole, opened.stream)
    members, tar_faults = tar.scan(opened.stream, is_whole)
    samples, sample_faults = group_samples(members)
    findings = [_to_finding(shard, fault) for fault in (*opened.faults, *tar_faults, *sample_faults)]
    if not samples and not any(finding.is_damage for finding in findings):
        detail = f"no photo and no text in the tar ({len(members)} members)"
        findings.append(Finding("no_sample", shard.uri, detail))
    num_expected = shard.num_items + shard.num_others
    if shard.has_manifest and len(samples) != num_expected:
        detail = f"{len(samples)} items, but its manifest states {num_expected}"
        findings.append(Finding("wrong_num_items", shard.uri, detail))
    keys = _live_keys(shard)
    live = [sample for sample in samples if keys is None or sample.key in keys]
    hashes = None if is_unchanged or not shard.has_manifest else _packed_hashes(shard)
    return LiveSamples(shard, opened.stream, live, findings, is_unchanged, hashes)


def _indexed_samples(shard: ShardRef, opened: OpenTar) -> LiveSamples:
    try:
        rows = {row[ITEM_ID]: row for row in indexed_rows(shard)}
    except (DamagedData, MissingError):  # the table is a `wrong_file` of the set
        rows = {}
    samples = [
        Sample(item_id, {PHOTO_SUFFIXES[0]: Member(item_id, row[IMAGE_OFFSET], row[IMAGE_BYTES])})
        for item_id, row in rows.items()
    ]
    findings = [_to_finding(shard, fault) for fault in opened.faults]
    if len(rows) != shard.num_items:
        detail = f"{len(rows)} items in its table, but its manifest states {shard.num_items}"
        findings.append(Finding("wrong_num_items", shard.uri, detail))
    is_unchanged = opened.path.stat().st_size == shard.num_bytes
    return LiveSamples(shard, opened.stream, samples, findings, is_unchanged, None, rows)


def valid_utf8(text: str) -> str:
    """The text with bytes that are not UTF-8 written as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _is_whole(stream: IO[bytes], member: Member) -> bool | None:
    """Whether a photo can be decoded; False for a text with binary content; None if that is unknown."""
    suffix = split_name(member.name)[1].rpartition(".")[2]
    if member.num_bytes > _MAX_MEMBER_BYTES:
        return None
    if suffix in TEXT_SUFFIXES:
        return False if b"\0" in read_member(stream, member) else None
    if suffix in PHOTO_SUFFIXES:
        kinds = [kind for kind, _, _ in _check_photo(stream, member, _MAX_PIXELS, is_strict=True)]
        return None if "too_many_pixels" in kinds else not kinds
    return None


def _check_photo(
    stream: IO[bytes], photo: Member, max_pixels: int, is_strict: bool
) -> Iterator[tuple[FindingKind, Member, str]]:
    if photo.num_bytes > _MAX_MEMBER_BYTES:
        yield "unreadable_photo", photo, f"{photo.num_bytes} bytes are too many for a photo"
        return
    try:
        data = read_member(stream, photo)
        decode_image(data, max_pixels=max_pixels)
        if is_strict and (damage := _damage_behind_pixels(data)):
            yield "unreadable_photo", photo, f"{photo.name}: {damage}"
    except UnreadableImage as error:
        yield (
            "too_many_pixels" if error.reason == "too_many_pixels" else "unreadable_photo",
            photo,
            f"{photo.name}: {error}",
        )
    except Exception as error:  # on damaged bytes, Pillow's plugins raise errors of any type
        yield "unreadable_photo", photo, f"{photo.name}: {type(error).__name__}: {error}"


def _damage_behind_pixels(data: bytes) -> str | None:
    """Damage that Pillow ignores in a photo: what libjpeg only warns about, wrong checksums of a PNG."""
    if not data.startswith((b"\xff\xd8", b"\x89PNG")):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they are about size and metadata
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG"))
        if image.format == "PNG":
            image.verify()  # raises SyntaxError
        return scan_damage(data, image)


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
            titles += titles_in(_read_text(stream, member), has_manifest)
        except (ValueError, RecursionError) as error:
            is_readable = False
            yield "bad_json" if member is json_member else "bad_text", member, f"{member.name}: {error}"
    if is_readable and not any(title.strip() for title in titles):
        detail = f"no text in {' or '.join(TITLE_KEYS)} of json, or in txt"
        yield "empty_title", json_member or txt_member, detail


def _read_text(stream: IO[bytes], member: Member) -> bytes:
    if member.num_bytes > _MAX_MEMBER_BYTES:
        raise ValueError(f"{member.num_bytes} bytes are too many for a text")
    return read_member(stream, member)


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
    return Finding(kind, shard.uri, valid_utf8(detail), valid_utf8(sample.key), at.offset)


def _to_finding(shard: ShardRef, fault: Fault) -> Finding:
    is_damage = fault.kind not in _REMARKS and (fault.kind != "unsorted" or shard.has_manifest)
    return Finding(
        fault.kind, shard.uri, valid_utf8(fault.detail), valid_utf8(fault.key), fault.offset, is_damage
    )


def _live_keys(shard: ShardRef) -> set[str] | None:
    """None, for all samples, if the table of items cannot be read; it is then a `wrong_file` of the set."""
    try:
        return live_keys(shard)
    except (DamagedData, MissingError):
        return None


def _packed_hashes(shard: ShardRef) -> dict[str, bytes] | None:
    """None if the table of items cannot be read; it is then a `wrong_file` of the set."""
    try:
        return item_hashes(shard)
    except (DamagedData, MissingError):
        return None
