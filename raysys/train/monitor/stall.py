"""Who keeps a group of workers waiting: decided from what each of them last told of itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

WAITING = "waiting for data"
READY = "ready with data"
IN_TOWERS = "in the towers"
EXCHANGING = "exchanging"
SAVING = "saving"
ENDED = "at its end"
_NAMED = 3  # a line that is read names no more ranks


@dataclass(frozen=True)
class WorkerStatus:
    """What a worker tells of itself about once a second."""

    rank: int
    world_size: int
    node: str
    step: int
    phase: str
    moves: int
    """Phases begun since the group started. All ranks go through the same ones: fewer is behind."""
    is_warm: bool
    """Whether its first step is done, in which models are compiled."""


@dataclass(frozen=True)
class LastHeartbeat:
    """A rank's last sign, and by one clock when it came and when it first said the same."""

    status: WorkerStatus
    at_s: float
    moved_s: float


def is_running(heartbeats: Sequence[LastHeartbeat], now_s: float, silent_s: float) -> bool:
    """Whether any worker has lately told that it is at work."""
    return any(one.status.phase != ENDED and now_s - one.at_s <= silent_s for one in heartbeats)


def stall_line(heartbeats: Sequence[LastHeartbeat], now_s: float, after_s: float) -> str | None:
    """Which ranks the others wait for, once nothing has moved for `after_s` seconds; None if all is well.

    A rank that does not move is no fault as long as all of them are in the same phase: together they wait for
    the first batch, compile, or save. Nor is a group that is gone as a whole, which Ray starts again.
    """
    if not heartbeats:
        return None
    world_size = max(heartbeats, key=lambda one: one.at_s).status.world_size
    group = [one for one in heartbeats if one.status.rank < world_size and one.status.phase != ENDED]
    silent = [one for one in group if now_s - one.at_s > after_s / 2]
    if len(silent) == len(group) or now_s - max(one.moved_s for one in group) < after_s:
        return None
    if silent:
        return _named([f"{_place(one)} is silent (last {_doing(one)})" for one in silent], group, now_s)
    last = min(one.status.moves for one in group)
    behind = [one for one in group if one.status.moves == last]
    if len(behind) < len(group):
        return _named([f"{_place(one)} is {_doing(one)}" for one in behind], group, now_s)
    first = group[0].status
    if first.phase in (READY, EXCHANGING) and first.is_warm:
        return (
            f"all {len(group)} ranks are at step {first.step}, {first.phase}, since {_since(group, now_s)} s "
            "and none is behind; the network or a GPU hangs"
        )
    return None


def _named(lines: list[str], group: Sequence[LastHeartbeat], now_s: float) -> str:
    more = f" and {len(lines) - _NAMED} more ranks" if len(lines) > _NAMED else ""
    many = "them" if len(lines) > 1 else "it"
    return f"{', '.join(lines[:_NAMED])}{more}, since {_since(group, now_s)} s; the others wait for {many}"


def _since(group: Sequence[LastHeartbeat], now_s: float) -> str:
    return f"{now_s - max(one.moved_s for one in group):.0f}"


def _place(one: LastHeartbeat) -> str:
    return f"rank {one.status.rank} on node {one.status.node}"


def _doing(one: LastHeartbeat) -> str:
    return f"at step {one.status.step}, {one.status.phase}"
