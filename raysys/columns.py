"""Column names, dtypes and shapes of the data that crosses a stage.

Rows inside Ray Data use the same names as the Parquet files they are written to. Columns that only one stage
uses, such as those of the scanned rows of `raysys pack`, are defined in that stage.
"""

from __future__ import annotations

import hashlib

import pyarrow as pa

# An item, in shards and in every later artifact.
ITEM_ID = "item_id"
TITLE = "title"
ATTRIBUTES = "attributes"  # JSON text: attribute name -> value
GROUP = "group"  # equal for listings of the same thing, "" for a group of its own
IMAGE = "image"  # encoded photo, bytes
SPLIT = "split"

# The position of an item's photo: a ranged read of its shard returns the file.
SHARD = "shard"  # URI of the tar
IMAGE_OFFSET = "image_offset"  # bytes from the start of the tar
IMAGE_BYTES = "image_bytes"

# A batch for the model.
PIXELS = "pixels"  # uint8, size_px * size_px * 3, RGB, row-major
TOKENS = "tokens"  # int64, kinds of caption * max_length; the title is the first kind
CAPTION_KEYS = "caption_keys"  # int64, kinds of caption: equal for equal captions, 0 for none
EPOCH = "epoch"
SHARD_NUMBER = "shard_number"  # int64: index of the shard in the stream
SAMPLE_NUMBER = "sample_number"  # int64: index of the sample in the shard
SKIPPED = "skipped"  # int64: 0 for a usable sample, else 1 + its index in SKIP_REASONS
GROUP_KEYS = "group_keys"  # int64: equal for listings of one group, else unique
PATCH_SEEDS = "patch_seeds"  # int64: seed of the photo's random choice, with `train.patch_dropout`
TEACHER = "teacher"  # float16, L2-normalised vector of `train.teacher`; zeros for none
STREAM_POSITION = "stream_position"  # int64: position in the endless training sequence

SKIP_REASONS = ("missing_shard", "missing", "no_photo", "bad_text", "changed", "unreadable_photo")

# The table of a ShardSet's items.
ITEM_HASH = "item_hash"  # sha256 over photo, title and attributes
PHOTO_HASH = "photo_hash"  # perceptual hash, 128 bits: similar photos differ in few bits
HEADER_HASH = "header_hash"  # of a photo in a tar of another tool: 128 bits of its header and first KiB

# Embeddings.
EMBEDDING = "embedding"  # float32, L2-normalised
CONTENT_HASH = "content_hash"  # sha256 over photo and title, hex: an embedding depends on nothing else

# The interaction log: one row per shown item.
IMPRESSION_ID = "impression_id"
QUERY_ID = "query_id"
POSITION = "position"  # 0 is the first place of the shelf
TAPPED = "tapped"
SIMULATED = "simulated"

# The ledger of refused items.
REASON = "reason"
DETAIL = "detail"
SOURCE = "source"

LEDGER_SCHEMA = pa.schema(
    [(ITEM_ID, pa.string()), (REASON, pa.string()), (DETAIL, pa.string()), (SOURCE, pa.string())]
)

LOG_SCHEMA = pa.schema(
    [
        (IMPRESSION_ID, pa.int64()),
        (QUERY_ID, pa.string()),
        (ITEM_ID, pa.string()),
        (POSITION, pa.int32()),
        (TAPPED, pa.bool_()),
        (SIMULATED, pa.bool_()),
    ]
)


def item_hash(photo_sha256: bytes, title: str, attributes_json: str) -> bytes:
    """SHA-256 over the photo, the title and the attributes (canonical JSON) of an item in a shard."""
    return hashlib.sha256(b"\0".join([photo_sha256, title.encode(), attributes_json.encode()])).digest()


def content_hash(photo: bytes | pa.Buffer, title: str) -> str:
    """SHA-256 (hex) over photo and title: listings with equal hashes share one embedding."""
    digest = hashlib.sha256(photo)
    digest.update(b"\0" + title.encode())
    return digest.hexdigest()


def embedding_schema(dimensions: int) -> pa.Schema:
    """The columns of an EmbeddingSet's Parquet files."""
    return pa.schema(
        [
            (ITEM_ID, pa.string()),
            (TITLE, pa.string()),
            (ATTRIBUTES, pa.string()),
            (GROUP, pa.string()),
            (SPLIT, pa.string()),
            (SHARD, pa.string()),
            (IMAGE_OFFSET, pa.int64()),
            (IMAGE_BYTES, pa.int64()),
            (CONTENT_HASH, pa.string()),
            (EMBEDDING, pa.list_(pa.float32(), dimensions)),
        ]
    )
