"""What can be found out about a shard: findings, each of a kind, at a place, damage or a remark."""

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
        "bad_manifest",  # of the set
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
    ]
)
_EXAMPLES = 20  # of each kind are kept of a shard: a set without any title should not fill the memory


@dataclass(frozen=True)
class Finding:
    """Something found, at a byte offset of the file at `uri`; `key` names the sample, if one is concerned.

    A remark (`is_damage` is false) costs nothing: the members of somebody else's WebDataset may be unsorted.
    """

    kind: FindingKind
    uri: str
    detail: str
    key: str = ""
    offset: int = 0
    is_damage: bool = True


@dataclass(frozen=True)
class ShardHealth:
    """What is known of a shard: exact counts, and the first findings of each kind."""

    uri: str
    num_items: int
    num_bytes: int
    counts: dict[FindingKind, int]
    num_damages: int
    findings: tuple[Finding, ...]
    # A place a sample, in their order. Hashes, not keys: 8 bytes a sample are all that a large set needs.
    key_hashes: np.ndarray
    is_whole: np.ndarray

    def with_findings(self, more: Iterable[Finding]) -> ShardHealth:
        """The same shard, of which more is known."""
        added = list(more)
        return dataclasses.replace(
            self,
            counts=count_kinds(self.counts, added),
            num_damages=self.num_damages + sum(finding.is_damage for finding in added),
            findings=tuple(first_of_each_kind([*self.findings, *added])),
        )


def health_of(uri: str, findings: Iterable[Finding], num_bytes: int = 0) -> ShardHealth:
    """The health of a file without samples."""
    nothing = ShardHealth(uri, 0, num_bytes, {}, 0, (), np.zeros(0, np.uint64), np.zeros(0, bool))
    return nothing.with_findings(findings)


def count_kinds(counts: dict[FindingKind, int], findings: Sequence[Finding]) -> dict[FindingKind, int]:
    """Counts by kind, with these findings added."""
    total = collections.Counter(counts)
    total.update(finding.kind for finding in findings)
    return dict(total)


def first_of_each_kind(findings: Iterable[Finding], examples: int = _EXAMPLES) -> list[Finding]:
    """The first findings of each kind, in order."""
    seen: collections.Counter[FindingKind] = collections.Counter()
    kept = []
    for finding in findings:
        seen[finding.kind] += 1
        if seen[finding.kind] <= examples:
            kept.append(finding)
    return kept
