"""`raysys bench WHAT`: the cases of one bench, measured one after the other."""

from __future__ import annotations

import importlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, cast

from raysys.bench import report
from raysys.bench.measure import Case, Finding, measure
from raysys.config import Config


class Bench(Protocol):
    """What the module of a bench has."""

    def cases(self, config: Config, folder: Path) -> Iterator[Case]:
        """The cases, each prepared in `folder` when its turn has come."""

    def conclusions(self, findings: Sequence[Finding]) -> list[str]:
        """What follows from the findings, in lines that show their arithmetic."""


def run(what: str, config: Config, command: Sequence[str]) -> report.Report:
    """Measure everything that `raysys.bench.<what>` has; nothing it made stays."""
    bench = cast(Bench, importlib.import_module(f"raysys.bench.{what}"))
    with tempfile.TemporaryDirectory(prefix="raysys-bench-") as folder:
        findings = [measure(case, config.bench.rounds) for case in bench.cases(config, Path(folder))]
    return report.Report(what, report.facts(command), findings, bench.conclusions(findings))
