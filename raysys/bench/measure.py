"""The law of measuring: contenders take turns, each in processes of its own, and medians are compared.

A B C A B C: what slows the machine for a minute slows all of them. A contender's process stays alive for
its next turn, so what is loaded once is loaded before the first turn; memory is that of its whole tree.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from raysys.bench.memory import PeakMemory
from raysys.tracking import logs


@dataclass(frozen=True)
class Trial:
    """One turn of a contender: its rate, and further figures by name."""

    rate: float
    figures: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Contenders at the same work. `peer` and `limit` name those of them that all are compared with."""

    name: str
    unit: str
    contenders: Mapping[str, Callable[[], Trial]]  # functions that can be pickled
    peer: str
    limit: str
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """The middle of some measurements, and how far they lie apart."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Standing:
    """What a contender came to, beside its peer and its limit (ratios of median rates)."""

    rate: Spread
    to_peer: float
    to_limit: float
    peak_memory_bytes: int
    object_store_bytes: int
    figures: Mapping[str, Spread]


@dataclass(frozen=True)
class Finding:
    """A measured case."""

    case: str
    unit: str
    peer: str
    limit: str
    facts: Mapping[str, float]
    contenders: Mapping[str, Standing]


def measure(case: Case, rounds: int) -> Finding:
    """Let the contenders of a case take turns for some rounds."""
    with contextlib.ExitStack() as stack:
        seats = {name: stack.enter_context(_Seat(run)) for name, run in case.contenders.items()}
        for number in range(1, rounds + 1):
            for name, seat in seats.items():
                trial = seat.take_turn()
                logs.log.info(
                    "    bench  %s  round %d  %s: %.1f %s", case.name, number, name, trial.rate, case.unit
                )
    rates = {name: Spread.of([trial.rate for trial in seat.trials]) for name, seat in seats.items()}
    standings = {
        name: Standing(
            rate=rates[name],
            to_peer=rates[name].median / rates[case.peer].median,
            to_limit=rates[name].median / rates[case.limit].median,
            peak_memory_bytes=seat.peak_memory_bytes,
            object_store_bytes=seat.object_store_bytes,
            figures={
                figure: Spread.of([trial.figures[figure] for trial in seat.trials])
                for figure in seat.trials[0].figures
            },
        )
        for name, seat in seats.items()
    }
    return Finding(case.name, case.unit, case.peer, case.limit, case.facts, standings)


class _Seat:
    """A contender in a process of its own, and what its turns came to."""

    def __init__(self, run: Callable[[], Trial]) -> None:
        self.trials: list[Trial] = []
        self.peak_memory_bytes = 0
        self.object_store_bytes = 0
        self._run = run

    def __enter__(self) -> _Seat:
        # Spawned, not forked: a contender begins without what this process has loaded.
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, mp_context=spawn, initializer=_keep_stdout_clean)
        self._pid = self._process.submit(os.getpid)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.submit(_leave_ray).result()
        self._process.shutdown()

    def take_turn(self) -> Trial:
        with PeakMemory(self._pid.result()) as peak:
            self.trials.append(self._process.submit(self._run).result())
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak.tree_bytes)
        self.object_store_bytes = max(self.object_store_bytes, peak.store_bytes)
        return self.trials[-1]


def _keep_stdout_clean() -> None:
    """stdout carries the result alone; what contenders and Ray print goes to stderr."""
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _leave_ray() -> None:
    """End the cluster that a contender started; a pool's process ends without its exit handlers."""
    if "ray" in sys.modules:
        from raysys.cluster import session

        session.disconnect()
