"""Reads the `.wandb` file of an offline W&B run without a server.

A header of 7 bytes is followed by blocks in LevelDB's log format: every fragment has a checksum (4 bytes), a
length (2) and a type (1), and none crosses a block. The fragments of a record form one protobuf message.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_BLOCK_BYTES = 32768
_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


@dataclass
class OfflineRun:
    """A run as a server would show it."""

    run_id: str = ""
    group: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    references: dict[str, tuple[str, str]] = field(default_factory=dict)
    """Artifact -> (URI, fingerprint)."""


def read_run(path: Path) -> OfflineRun:
    """The run in a `.wandb` file; an incomplete record at its end is ignored."""
    run = OfflineRun()
    for data in _records(path.read_bytes()):
        record = wandb_internal_pb2.Record.FromString(data)
        if record.HasField("run"):
            run.run_id, run.group = record.run.run_id, record.run.run_group
            run.config |= _values(record.run.config.update)
        elif record.HasField("config"):
            run.config |= _values(record.config.update)
        elif record.HasField("history"):
            run.history.append(_values(record.history.item))
        elif record.HasField("artifact"):
            for content in record.artifact.manifest.contents:
                if content.ref:  # images are files
                    run.references[record.artifact.name] = (content.ref, content.path)
    return run


def _values(items: Any) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _records(data: bytes) -> Iterator[bytes]:
    assert data.startswith(b":W&B")
    position, parts = 7, b""
    while position + _HEADER.size <= len(data):
        left = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left < _HEADER.size:  # the rest of a block is too short for a fragment
            position += left
            continue
        _, size, kind = _HEADER.unpack_from(data, position)
        position += _HEADER.size
        parts = (b"" if kind in (_FULL, _FIRST) else parts) + data[position : position + size]
        position += size
        if kind in (_FULL, _LAST) and position <= len(data):
            yield parts
