"""Detection of a stalled worker group: which ranks keep the others waiting, from their last heartbeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

STARTING = "starting"
WAITING_FOR_DATA = "waiting for data"
DATA_READY = "data ready"
FORWARD = "forward pass"
LOSS_AND_BACKWARD = "loss and backward pass"
VALIDATING = "validating"
SAVING = "saving a checkpoint"
ENDED = "ended"
_MAX_NAMED_RANKS = 3


@dataclass(frozen=True)
class WorkerStatus:
    """What a worker reports about once a second."""

    rank: int
    world_size: int
    node: str
    step: int
    phase: str
    num_phase_changes: int
    """Since the group started. All ranks go through the same phases: a rank with fewer is behind."""
    is_warm: bool
    """Whether this attempt has completed a step; the first one compiles the model."""


@dataclass(frozen=True)
class LastHeartbeat:
    """The last heartbeat of a rank; both times are by the clock of the coordinator."""

    status: WorkerStatus
    received_s: float
    unchanged_since_s: float
    """When this status was first received."""


def is_running(heartbeats: Sequence[LastHeartbeat], now_s: float, silent_s: float) -> bool:
    """Whether a worker that has not ended sent a heartbeat within the last `silent_s` seconds."""
    return any(one.status.phase != ENDED and now_s - one.received_s <= silent_s for one in heartbeats)


def stall_line(
    heartbeats: Sequence[LastHeartbeat],
    now_s: float,
    after_s: float,
    *,
    data_after_s: float = math.inf,
    stream: str = "",
) -> str | None:
    """Which ranks the others wait for, once no status has changed for `after_s` seconds; else None.

    Ranks that all wait for data are a stall after `data_after_s`; `stream` says what their stream waits for.
    Other ranks that are all in the same phase are no stall: together they compile or save. Neither is a group
    without any heartbeat, which Ray restarts.
    """
    group, silent = _group(heartbeats), _silent(heartbeats, now_s, after_s)
    if not group or len(silent) == len(group):
        return None
    stalled_s = _unchanged_s(group, now_s)
    no_progress = f"no progress for {stalled_s:.0f} s"
    if all(one.status.phase == WAITING_FOR_DATA for one in group) and not silent:
        if stalled_s < data_after_s:
            return None
        step = f"after step {group[0].status.step}"
        who = "the only rank waits" if len(group) == 1 else f"all {len(group)} ranks wait"
        return f"{no_progress}: {who} for data {step}{f' ({stream})' if stream else ''}"
    if stalled_s < after_s:
        return None
    if silent:
        described = [f"{_name(one)} sends no heartbeat (last: {_phase(one)})" for one in silent]
        return f"{no_progress}: {_ranks(described)}"
    fewest = min(one.status.num_phase_changes for one in group)
    behind = [one for one in group if one.status.num_phase_changes == fewest]
    if len(behind) < len(group):
        described = [f"{_name(one)} is at {_phase(one)}" for one in behind]
        return f"{no_progress}: {_ranks(described)}"
    first = group[0]
    if first.status.phase in (DATA_READY, LOSS_AND_BACKWARD, VALIDATING) and first.status.is_warm:
        return (
            f"{no_progress}: all {len(group)} ranks are at {_phase(first)}, none is behind; "
            "the network or a GPU hangs"
        )
    return None


def first_batch_wait_s(heartbeats: Sequence[LastHeartbeat], now_s: float, after_s: float) -> float | None:
    """How long a group that has not taken a step waits for a first batch; None below `after_s` seconds."""
    group = _group(heartbeats)
    if not group or _silent(heartbeats, now_s, after_s):
        return None
    phases = {one.status.phase for one in group}
    if WAITING_FOR_DATA not in phases or not phases <= {WAITING_FOR_DATA, DATA_READY}:
        return None
    if any(one.status.is_warm for one in group):
        return None
    waited_s = _unchanged_s(group, now_s)
    return waited_s if waited_s >= after_s else None


def _group(heartbeats: Sequence[LastHeartbeat]) -> list[LastHeartbeat]:
    """The ranks of the present worker group that have not ended."""
    if not heartbeats:
        return []
    world_size = max(heartbeats, key=lambda one: one.received_s).status.world_size
    return [one for one in heartbeats if one.status.rank < world_size and one.status.phase != ENDED]


def _silent(heartbeats: Sequence[LastHeartbeat], now_s: float, after_s: float) -> list[LastHeartbeat]:
    return [one for one in _group(heartbeats) if now_s - one.received_s > after_s / 2]


def _unchanged_s(group: Sequence[LastHeartbeat], now_s: float) -> float:
    return now_s - max(one.unchanged_since_s for one in group)


def _ranks(descriptions: list[str]) -> str:
    named, num_more = descriptions[:_MAX_NAMED_RANKS], len(descriptions) - _MAX_NAMED_RANKS
    more = f" and {num_more} more" if num_more > 0 else ""
    them = "them" if len(descriptions) > 1 else "it"
    return f"{', '.join(named)}{more}; the other ranks wait for {them}"


def _name(one: LastHeartbeat) -> str:
    return f"rank {one.status.rank} on node {one.status.node}"


def _phase(one: LastHeartbeat) -> str:
    return f"step {one.status.step}, {one.status.phase}"
