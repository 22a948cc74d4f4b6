"""Is a sample whole? Its photo is decoded, its json and txt are read; one sample at a time is in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from typing import IO

import pyarrow as pa

from raysys import storage
from raysys.columns import ATTRIBUTES, ITEM_ID, TITLE
from raysys.encoder.preprocess import decode_image
from raysys.errors import UnreadableImage
from raysys.shards import tar
from raysys.shards.shard_set import TITLE_KEYS, dead_keys
from raysys.shards.tar import Fault, Member, Sample
from raysys.verify.find import ShardPiece
from raysys.verify.health import Finding, FindingKind

_MAX_MEMBER_BYTES = 256 << 20  # a photo or a text beyond this is none, and should not fill the memory


def live_samples(piece: ShardPiece, stream: IO[bytes]) -> tuple[list[Sample], list[Finding]]:
    """The samples of an open shard that no tombstone names, and what is wrong with the tar itself."""
    members, faults = tar.scan(stream)
    found, more_faults = tar.samples(members)
    findings = [_as_finding(piece, fault) for fault in (*faults, *more_faults)]
    if piece.promise and len(found) != piece.promise.num_items:
        detail = f"{len(found)} items, its manifest says {piece.promise.num_items}"
        findings.append(Finding("wrong_num_items", piece.uri, detail))
    dead = _dead_keys(piece)
    return [sample for sample in found if sample.key not in dead], findings


def check_sample(piece: ShardPiece, stream: IO[bytes], sample: Sample, max_pixels: int) -> list[Finding]:
    """What is wrong with a sample, in the order photo, text; nothing if it is whole."""
    tell = partial(_tell, piece, sample)
    photo = sample.photo()
    if photo is None:
        found = [tell("no_photo", None, f"members: {', '.join(sample.members)}")]
    else:
        found = [tell(*wrong) for wrong in _check_photo(stream, photo, max_pixels)]
    return found + [tell(*wrong) for wrong in _check_texts(stream, sample, piece.is_ours)]


def read_member(stream: IO[bytes], member: Member, most: int | None = None) -> bytes:
    """The content of a member of an open tar.

    Raises: ValueError if it has more than `most` bytes.
    """
    if most is not None and member.num_bytes > most:
        raise ValueError(f"{member.num_bytes} bytes are too many for a text")
    stream.seek(member.offset)
    return stream.read(member.num_bytes)


def printable(text: str) -> str:
    """The text, where bytes of a name that are no UTF-8 are written out."""
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
    except Exception as error:  # broken bytes lead Pillow's plugins to errors of any type
        yield "unreadable_photo", photo, f"{photo.name}: {type(error).__name__}: {error}"


def _check_texts(
    stream: IO[bytes], sample: Sample, is_ours: bool
) -> Iterator[tuple[FindingKind, Member | None, str]]:
    said, text = sample.members.get("json"), sample.members.get("txt")
    if said is None and (text is None or is_ours):
        yield "no_text", None, f"members: {', '.join(sample.members)}"
        return
    titles: list[str] = []
    is_readable = True
    for member, titles_in in ((said, _titles_in_json), (text, _title_in_txt)):
        if member is None:
            continue
        try:
            titles += titles_in(read_member(stream, member, _MAX_MEMBER_BYTES), is_ours)
        except (ValueError, RecursionError) as error:
            is_readable = False
            yield "bad_json" if member is said else "bad_text", member, f"{member.name}: {error}"
    if is_readable and not any(title.strip() for title in titles):
        yield "empty_title", said or text, f"no text in {' or '.join(TITLE_KEYS)} of json, or in txt"


def _titles_in_json(data: bytes, is_ours: bool) -> list[str]:
    said = json.loads(data)
    if not isinstance(said, dict):
        raise ValueError(f"an object is needed, got {type(said).__name__}")
    if missing := [key for key in (ITEM_ID, TITLE, ATTRIBUTES) if is_ours and key not in said]:
        raise ValueError(f"no {', '.join(missing)}")
    return [str(said[key]) for key in TITLE_KEYS if said.get(key)]


def _title_in_txt(data: bytes, _: bool) -> list[str]:
    return [data.decode()]


def _tell(
    piece: ShardPiece, sample: Sample, kind: FindingKind, member: Member | None, detail: str
) -> Finding:
    at = member or next(iter(sample.members.values()))
    return Finding(kind, piece.uri, printable(detail), printable(sample.key), at.offset)


def _as_finding(piece: ShardPiece, fault: Fault) -> Finding:
    is_damage = fault.kind != "unsorted" or piece.is_ours
    return Finding(
        fault.kind, piece.uri, printable(fault.detail), printable(fault.key), fault.offset, is_damage
    )


def _dead_keys(piece: ShardPiece) -> set[str]:
    if piece.tombstones_uri is None or not storage.exists(piece.tombstones_uri):
        return set()
    try:
        return dead_keys(piece.tombstones_uri, piece.uri)
    except pa.ArrowInvalid:  # told as a wrong file of the set
        return set()
