"""Run one benchmark: measure its cases one after the other and report the results."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, cast

from raysys.bench import report
from raysys.bench.config import BenchRunConfig
from raysys.bench.measure import Case, CaseResult, measure
from raysys.signals import exit_at_sigterm


class Benchmark(Protocol):
    """The functions that a benchmark's module defines."""

    def cases(self, config: BenchRunConfig, folder: Path) -> Iterator[Case]:
        """The cases; the inputs of each are written to `folder` just before it is measured."""

    def conclusions(self, results: Sequence[CaseResult]) -> list[str]:
        """Lines that interpret the results and show their arithmetic."""


def run(name: str, config: BenchRunConfig, command: Sequence[str]) -> report.Report:
    """Measure all cases of `raysys.bench.<name>`; its temporary files are removed, also at SIGTERM."""
    exit_at_sigterm()
    benchmark = cast(Benchmark, importlib.import_module(f"raysys.bench.{name}"))
    with tempfile.TemporaryDirectory(prefix="raysys-bench-") as folder:
        results = [measure(case, config.bench.rounds) for case in benchmark.cases(config, Path(folder))]
    return report.Report(name, report.describe_environment(command), results, benchmark.conclusions(results))
