"""How contenders are measured: in turn (A B C, A B C, ..), each in its own process, compared by medians.

Measuring in turn spreads a slow minute of the machine over all contenders. A contender's process lives
through all rounds, so imports and models are loaded once; memory is that of its process tree.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field

from raysys.bench.memory import PeakMemory
from raysys.signals import exit_at_sigterm
from raysys.tracking import logs


@dataclass(frozen=True)
class Measurement:
    """One run of a contender: its rate, and further metrics by name."""

    rate: float
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Case:
    """Contenders that do the same work.

    `baseline` and `limit` (an upper bound) are the names of the contenders that all are compared with.
    `properties` are numbers that describe the work.
    """

    name: str
    unit: str
    contenders: Mapping[str, Callable[[], Measurement]]  # picklable
    baseline: str
    limit: str
    properties: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Spread:
    """Median, minimum and maximum of repeated measurements."""

    median: float
    min: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class ContenderResult:
    """A contender over all rounds; `vs_baseline` and `vs_limit` are medians of the rounds' ratios."""

    rate: Spread
    vs_baseline: float
    vs_limit: float
    peak_memory_bytes: int
    object_store_bytes: int
    metrics: Mapping[str, Spread]


@dataclass(frozen=True)
class CaseResult:
    """A measured case."""

    case: str
    unit: str
    baseline: str
    limit: str
    properties: Mapping[str, float]
    contenders: Mapping[str, ContenderResult]


def measure(case: Case, rounds: int) -> CaseResult:
    """Measure every contender of a case once per round, in turn."""
    with contextlib.ExitStack() as stack:
        processes = {
            name: stack.enter_context(_ContenderProcess(run)) for name, run in case.contenders.items()
        }
        for number in range(1, rounds + 1):
            for name, process in processes.items():
                measurement = process.measure_once()
                logs.log.info(
                    "    bench  %s  round %d  %s: %.1f %s",
                    case.name, number, name, measurement.rate, case.unit,
                )  # fmt: skip
    rates = {
        name: [measurement.rate for measurement in process.measurements]
        for name, process in processes.items()
    }
    results = {
        name: ContenderResult(
            rate=Spread.of(rates[name]),
            vs_baseline=median_ratio(rates[name], rates[case.baseline]),
            vs_limit=median_ratio(rates[name], rates[case.limit]),
            peak_memory_bytes=process.peak_memory_bytes,
            object_store_bytes=process.object_store_bytes,
            metrics=_metric_spreads(process.measurements),
        )
        for name, process in processes.items()
    }
    return CaseResult(case.name, case.unit, case.baseline, case.limit, case.properties, results)


def median_ratio(rates: Sequence[float], others: Sequence[float]) -> float:
    """The median of the rounds' ratios: what slows a round down slows both."""
    return statistics.median(rate / other for rate, other in zip(rates, others, strict=True))


def _metric_spreads(measurements: Sequence[Measurement]) -> dict[str, Spread]:
    return {
        name: Spread.of([measurement.metrics[name] for measurement in measurements])
        for name in measurements[0].metrics
    }


class _ContenderProcess:
    """Runs a contender in its own process and collects its measurements and peak memory."""

    def __init__(self, run: Callable[[], Measurement]) -> None:
        self.measurements: list[Measurement] = []
        self.peak_memory_bytes = 0
        self.object_store_bytes = 0
        self._run = run

    def __enter__(self) -> _ContenderProcess:
        # Spawned, not forked: a contender starts without the modules that this process has loaded.
        spawn = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, mp_context=spawn, initializer=_start_process)
        self._pid = self._process.submit(os.getpid)
        return self

    def __exit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        if error_type is not None and not issubclass(error_type, Exception):  # stopped by a signal
            with contextlib.suppress(BrokenProcessPool, ProcessLookupError):
                os.kill(self._pid.result(), signal.SIGTERM)
        with contextlib.suppress(BrokenProcessPool):  # SIGTERM ends an idle process
            self._process.submit(_disconnect_ray).result()
        self._process.shutdown()

    def measure_once(self) -> Measurement:
        with PeakMemory(self._pid.result()) as peak:
            self.measurements.append(self._process.submit(self._run).result())
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak.tree_bytes)
        self.object_store_bytes = max(self.object_store_bytes, peak.store_bytes)
        return self.measurements[-1]


def _start_process() -> None:
    """Keep stdout for the report: contenders and Ray print to stderr. SIGTERM ends a measurement."""
    exit_at_sigterm()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())


def _disconnect_ray() -> None:
    """Stop a cluster that a contender started: a pool's process ends without running exit handlers."""
    if "ray" in sys.modules:
        from raysys.cluster import session

        session.disconnect()
