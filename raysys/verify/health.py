"""The result of checking a shard: findings, each with a kind and a position, either damage or a remark."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from raysys.shards.tar import FaultKind

FindingKind: TypeAlias = (
    FaultKind
    | Literal[
        "bad_manifest",  # of the ShardSet
        "unnamed_shard",
        "wrong_file",
        "absent_shard",  # of the shard as a file
        "unreadable_shard",
        "wrong_bytes",
        "wrong_sha256",
        "wrong_num_items",
        "no_photo",  # of a sample
        "unreadable_photo",
        "too_many_pixels",
        "no_text",
        "bad_json",
        "bad_text",
        "empty_title",
        "repeated_key",
        "changed",
    ]
)
_MAX_EXAMPLES = 20  # findings stored of each kind and shard: a set without any title must not fill the memory


@dataclass(frozen=True)
class Finding:
    """A problem at a byte offset of the file at `uri`; `key` names the affected sample, if there is one.

    A remark has `is_damage=False` and loses no data: a third-party WebDataset may have unsorted keys.
    """

    kind: FindingKind
    uri: str
    detail: str
    key: str = ""
    offset: int = 0
    is_damage: bool = True


@dataclass(frozen=True)
class ShardHealth:
    """The findings of a shard or a folder: exact counts by kind, and the first findings of each kind."""

    uri: str
    num_items: int
    num_bytes: int
    counts: dict[FindingKind, int]
    num_damage_findings: int
    findings: tuple[Finding, ...]
    # One entry a sample, in shard order. Hashes, not keys: a large set then needs 8 bytes a sample.
    key_hashes: np.ndarray
    is_intact: np.ndarray

    def with_findings(self, more: Iterable[Finding]) -> ShardHealth:
        """A copy with more findings."""
        added = list(more)
        return dataclasses.replace(
            self,
            counts=count_kinds(self.counts, added),
            num_damage_findings=self.num_damage_findings + sum(finding.is_damage for finding in added),
            findings=tuple(first_of_each_kind([*self.findings, *added])),
        )


def health_of(uri: str, findings: Iterable[Finding], num_bytes: int = 0) -> ShardHealth:
    """The health of a file or folder without samples."""
    empty = ShardHealth(uri, 0, num_bytes, {}, 0, (), np.zeros(0, np.uint64), np.zeros(0, bool))
    return empty.with_findings(findings)


def count_kinds(counts: dict[FindingKind, int], findings: Sequence[Finding]) -> dict[FindingKind, int]:
    """Counts by kind with these findings added."""
    total = collections.Counter(counts)
    total.update(finding.kind for finding in findings)
    return dict(total)


def first_of_each_kind(findings: Iterable[Finding], max_examples: int = _MAX_EXAMPLES) -> list[Finding]:
    """The first `max_examples` findings of each kind, in order."""
    seen: collections.Counter[FindingKind] = collections.Counter()
    examples = []
    for finding in findings:
        seen[finding.kind] += 1
        if seen[finding.kind] <= max_examples:
            examples.append(finding)
    return examples
