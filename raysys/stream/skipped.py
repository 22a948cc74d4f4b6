"""Samples that a training run skipped, with the reason.

Every worker writes its skipped samples to its own file beside the checkpoints. Positions are the same in
every attempt, so a sample that a restarted run skips again stays one entry.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from jaxtyping import Int64
from numpy import ndarray

from raysys import storage
from raysys.columns import EPOCH, SAMPLE_NUMBER, SHARD_NUMBER, SKIP_REASONS, SKIPPED, STREAM_POSITION
from raysys.errors import DamagedData
from raysys.shards.reader import ShardRef
from raysys.tracking.logs import log

SKIPPED_COLUMNS = (SKIPPED, STREAM_POSITION, EPOCH, SHARD_NUMBER, SAMPLE_NUMBER)
_PREFIX = "skipped-"


@dataclass(frozen=True)
class SkippedSample:
    """A sample of the training sequence that could not be used."""

    position: int
    epoch: int
    shard: str
    sample: int  # its number in the shard
    reason: str


class SkippedSamples:
    """Records and counts one worker's skipped samples from position `start` on; call `add` for every batch.

    Samples skipped before `start` count for rank 0, because an earlier attempt with another number of workers
    may have dealt them to other ranks.
    """

    def __init__(self, shards: Sequence[ShardRef], run_uri: str, rank: int, start: int) -> None:
        self._shards = shards
        self._uri = storage.join(run_uri, f"{_PREFIX}{rank:05d}.jsonl")
        self._in_file = {entry.position: entry for entry in _read(self._uri)}
        before = read_skipped(run_uri) if rank == 0 else []
        self._counted = {entry.position for entry in before if entry.position < start}

    def add(self, batch: Mapping[str, Int64[ndarray, " n"]]) -> None:
        """Record the skipped samples of a batch, given its `SKIPPED_COLUMNS`."""
        codes = batch[SKIPPED]
        if not codes.any():
            return
        for row in codes.nonzero()[0]:
            position = int(batch[STREAM_POSITION][row])
            self._counted.add(position)
            self._in_file[position] = SkippedSample(
                position=position,
                epoch=int(batch[EPOCH][row]),
                shard=self._shards[int(batch[SHARD_NUMBER][row])].uri,
                sample=int(batch[SAMPLE_NUMBER][row]),
                reason=SKIP_REASONS[int(codes[row]) - 1],
            )
        lines = (json.dumps(asdict(entry)) + "\n" for _, entry in sorted(self._in_file.items()))
        storage.write_bytes(self._uri, "".join(lines).encode())

    def num_skipped(self, first: int, stop: int) -> int:
        """Samples skipped from position `first` to `stop` (exclusive)."""
        return sum(first <= position < stop for position in self._counted)


def read_skipped(run_uri: str) -> list[SkippedSample]:
    """The skipped samples of all workers of a run, each once, by position."""
    names = [name for name in storage.list_files(run_uri) if name.startswith(_PREFIX)]
    entries = {entry.position: entry for name in names for entry in _read(storage.join(run_uri, name))}
    return [entry for _, entry in sorted(entries.items())]


def report_skipped(
    run_uri: str, shards: Sequence[ShardRef], *, num_samples: int, max_bad_fraction: float
) -> None:
    """Log how many of the run's samples were skipped, and why. Raises: as `check_skipped_fraction`."""
    skipped = read_skipped(run_uri)
    check_skipped_fraction(skipped, shards, max_bad_fraction)
    if skipped:
        log.warning(
            "    train  skipped %d of %d samples (%s); listed in %s",
            len(skipped), num_samples, format_reasons(skipped), run_uri,
        )  # fmt: skip


def check_skipped_fraction(
    skipped: Sequence[SkippedSample], shards: Sequence[ShardRef], max_bad_fraction: float
) -> None:
    """Stop when an epoch skipped more than `max_bad_fraction` of its samples.

    Raises: DamagedData that names the shard with the most skipped samples.
    """
    per_epoch = sum(shard.num_items for shard in shards)
    for epoch, count in collections.Counter(entry.epoch for entry in skipped).items():
        if count > max_bad_fraction * per_epoch:
            of_epoch = [entry for entry in skipped if entry.epoch == epoch]
            shard, in_shard = collections.Counter(entry.shard for entry in of_epoch).most_common(1)[0]
            raise DamagedData(
                f"{shard}: {in_shard} of the {count} samples skipped in epoch {epoch} "
                f"({format_reasons(of_epoch)}; {per_epoch} samples in all); see `raysys verify`, pack again, "
                "or raise stream.max_bad_fraction"
            )


def format_reasons(skipped: Sequence[SkippedSample]) -> str:
    """`3 missing, 1 unreadable_photo`."""
    counts = collections.Counter(entry.reason for entry in skipped).most_common()
    return ", ".join(f"{count} {reason}" for reason, count in counts)


def _read(uri: str) -> list[SkippedSample]:
    if not storage.exists(uri):
        return []
    return [SkippedSample(**json.loads(line)) for line in storage.read_bytes(uri).decode().splitlines()]
