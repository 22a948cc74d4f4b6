"""`raysys pack`: a catalogue becomes one ShardSet a split.

The plan comes first and is pure: every row goes to a split (by a column, or by a hash of its seller, so
that growth moves nobody) and to a shard (by a hash of its id, so that each shard is a fair sample).
Then shards are written independently, members sorted by key and with a fixed time: the same catalogue
gives the same bytes. A row that cannot be used goes to the ledger with its reason.
"""

from __future__ import annotations

import collections
import hashlib
import io
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from raysys import artifacts, observe, storage
from raysys.artifacts import FileEntry, ShardEntry, ShardSetManifest, Target
from raysys.config.schema import AttributeSplit, ColumnSplit, PackConfig
from raysys.encoder.preprocess import decode_image
from raysys.errors import DamagedData, InputError, MissingError, UnreadableImage
from raysys.records import (
    ATTRIBUTES,
    DETAIL,
    ITEM_ID,
    LEDGER_SCHEMA,
    REASON,
    SOURCE,
    TITLE,
    Parallel,
    Refusal,
)
from raysys.shards.catalog import CatalogRow

SPLITS = ("train", "val", "test")
LEDGER = "ledger.parquet"
_SAFE_KEY = re.compile(r"[A-Za-z0-9_-]{1,120}")
_JPEG_QUALITY = 95


@dataclass(frozen=True)
class ShardPlan:
    """The rows of one shard, in the order of their keys."""

    split: str
    name: str
    rows: tuple[CatalogRow, ...]


def plan_shards(
    rows: Sequence[CatalogRow], section: PackConfig
) -> tuple[list[ShardPlan], dict[str, list[Refusal]]]:
    """Which row goes to which shard, and (by split) which rows are refused unseen.

    Raises: InputError for a split that is none of train, val, test.
    """
    by_split: dict[str, dict[str, CatalogRow]] = {split: {} for split in SPLITS}
    refused: dict[str, list[Refusal]] = {split: [] for split in SPLITS}
    seen: set[str] = set()
    for row in rows:
        split = split_of(row, section.split)
        if reason := _refuse_unseen(row, seen):
            refused[split].append(Refusal(row.item_id, *reason, row.source))
        else:
            by_split[split][row.item_id] = row
            seen.add(row.item_id)
    plans = [plan for split in SPLITS for plan in _cut(split, list(by_split[split].values()), section)]
    return plans, refused


def split_of(row: CatalogRow, how: ColumnSplit | AttributeSplit) -> str:
    """The split of a row; it never changes when the catalogue grows."""
    if isinstance(how, ColumnSplit):
        if row.split not in SPLITS:
            wanted = ", ".join(SPLITS)
            raise InputError(
                f"{row.source}: column '{how.column}' should be one of {wanted}, got {row.split!r}"
            )
        return row.split
    if how.attribute not in row.attributes:
        raise InputError(
            f"pack.split.attribute: '{how.attribute}' is no attribute of the catalogue "
            f"(attributes: {', '.join(row.attributes) or 'none'}); add it to catalog.columns.attributes"
        )
    together = row.attributes[how.attribute]
    share = _share(f"{how.seed} {row.item_id if together is None else together}")
    if share < how.test_fraction:
        return "test"
    return "val" if share < how.test_fraction + how.val_fraction else "train"


def pack(
    rows: Sequence[CatalogRow], section: PackConfig, targets: Mapping[str, Target], parallel: Parallel
) -> dict[str, ShardSetManifest]:
    """Write the ShardSet of every split that `targets` names.

    Raises: DamagedData above `max_bad_fraction`, before anything is published; InputError if nothing is
    left for training.
    """
    started = time.monotonic()
    plans, refused = plan_shards(rows, section)
    for target in targets.values():
        artifacts.begin(target)
    uri_of = {split: target.uri for split, target in targets.items()}
    written: dict[str, list[ShardEntry]] = {split: [] for split in SPLITS}
    work = partial(pack_shard, uri_of=uri_of, max_pixels=int(section.max_megapixels * 1e6))
    with observe.progress("pack", len(rows)) as advance:
        done = 0
        for plan, (entry, refusals) in zip(plans, parallel(work, plans), strict=True):
            refused[plan.split] += refusals
            written[plan.split] += [entry] if entry.num_items else []
            advance(done := done + len(plan.rows))
    catalog = targets["train"].inputs["catalog"].uri
    _check_refused(len(rows), refused, section, catalog)
    if not written["train"]:
        raise InputError(
            f"{catalog}: no usable row is in the train split; check pack.split and the catalogue"
        )
    schema, seconds = _item_schema(rows), time.monotonic() - started
    return {
        split: _publish(targets[split], split, written[split], refused[split], schema, seconds)
        for split in SPLITS
    }


def pack_shard(
    plan: ShardPlan, *, uri_of: dict[str, str], max_pixels: int
) -> tuple[ShardEntry, list[Refusal]]:
    """Write one tar; what it could not take comes back as refusals."""
    import webdataset  # brings torch along, which a stage that is up to date should not wait for

    tar, refusals, num_items = io.BytesIO(), [], 0
    with webdataset.TarWriter(tar, mtime=0, encoder=False) as writer:
        for row in plan.rows:
            try:
                photo = read_photo(row.image, max_pixels)
            except (UnreadableImage, MissingError) as error:
                reason = error.reason if isinstance(error, UnreadableImage) else "missing_image"
                refusals.append(Refusal(row.item_id, reason, str(error), row.source))
                continue
            said = {ITEM_ID: row.item_id, TITLE: clean_title(row.title), ATTRIBUTES: row.attributes}
            writer.write({"__key__": key_of(row.item_id), "jpg": photo, "json": _json(said)})
            num_items += 1
    data = tar.getvalue()
    if num_items:
        storage.write_bytes(storage.join(uri_of[plan.split], plan.name), data)
    entry = ShardEntry(
        name=plan.name, num_items=num_items, bytes=len(data), sha256=storage.sha256_of_bytes(data)
    )
    return entry, refusals


def read_photo(image: str | bytes, max_pixels: int) -> bytes:
    """The photo as JPEG: the original bytes if they are an upright RGB JPEG, else encoded anew.

    Raises: MissingError, UnreadableImage.
    """
    data = image if isinstance(image, bytes) else storage.read_bytes(image)
    picture = decode_image(data, max_pixels=max_pixels)
    if _is_plain_jpeg(data):
        return data
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return encoded.getvalue()


def key_of(item_id: str) -> str:
    """The member name of an item: its id where a tar can hold that, else a hash of it."""
    if _SAFE_KEY.fullmatch(item_id):
        return item_id
    return "x" + hashlib.sha256(item_id.encode()).hexdigest()[:24]


def clean_title(title: str) -> str:
    """The title with every run of white space as one blank."""
    return " ".join(title.split())


def _refuse_unseen(row: CatalogRow, seen: set[str]) -> tuple[str, str] | None:
    if row.problem:
        return row.problem
    if not row.item_id:
        return "no_id", "the row has no item id"
    if row.item_id in seen:
        return "repeated_id", "an earlier row has the same item id"
    if not clean_title(row.title):
        return "no_title", "the title is empty"
    if not row.image:
        return "no_image", "the row names no photo"
    return None


def _cut(split: str, rows: list[CatalogRow], section: PackConfig) -> list[ShardPlan]:
    mixed = sorted(rows, key=lambda row: hashlib.sha256(row.item_id.encode()).digest())
    size = section.items_per_shard
    return [
        ShardPlan(
            split,
            f"{start // size:05d}.tar",
            tuple(sorted(mixed[start : start + size], key=lambda row: key_of(row.item_id))),
        )
        for start in range(0, len(mixed), size)
    ]


def _share(text: str) -> float:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64


def _is_plain_jpeg(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.format == "JPEG" and picture.mode == "RGB" and not picture.getexif()


def _json(value: dict[str, Any]) -> bytes:
    return artifacts.canonical_json(value).encode()


def _check_refused(
    num_rows: int, refused: dict[str, list[Refusal]], section: PackConfig, source: str
) -> None:
    all_refused = [refusal for refusals in refused.values() for refusal in refusals]
    if len(all_refused) > section.max_bad_fraction * num_rows:
        counts = collections.Counter(refusal.reason for refusal in all_refused).most_common()
        reasons = ", ".join(f"{count} {reason}" for reason, count in counts)
        first = all_refused[0]
        raise DamagedData(
            f"{source}: {len(all_refused)} of {num_rows} rows cannot be used ({reasons}; "
            f"first {first.source}: {first.detail}); mend them, or raise pack.max_bad_fraction"
        )


def _item_schema(rows: Sequence[CatalogRow]) -> dict[str, str]:
    kinds = {str: "text", bool: "boolean", int: "integer", float: "number"}
    schema: dict[str, str] = {}
    for row in rows:
        schema |= {name: kinds[type(value)] for name, value in row.attributes.items() if value is not None}
    return schema


def _publish(
    target: Target,
    split: str,
    shards: list[ShardEntry],
    refused: list[Refusal],
    schema: dict[str, str],
    seconds: float,
) -> ShardSetManifest:
    with storage.writable_file(storage.join(target.uri, LEDGER)) as path:
        pq.write_table(_ledger(refused), path)
    files = artifacts.describe_files(target.uri, only=[LEDGER])
    files |= {shard.name: FileEntry(bytes=shard.bytes, sha256=shard.sha256) for shard in shards}
    manifest = ShardSetManifest(
        **artifacts.common_fields(target, files, sum(shard.num_items for shard in shards), seconds),
        split=split,
        shards=shards,
        item_schema=schema,
        num_rows=sum(shard.num_items for shard in shards) + len(refused),
        num_refused=len(refused),
        refused_by_reason=dict(collections.Counter(refusal.reason for refusal in refused)),
    )
    return artifacts.publish(target.uri, manifest)


def _ledger(refused: Iterable[Refusal]) -> pa.Table:
    rows = [{ITEM_ID: r.item_id, REASON: r.reason, DETAIL: r.detail, SOURCE: r.source} for r in refused]
    return pa.Table.from_pylist(rows, schema=LEDGER_SCHEMA)
