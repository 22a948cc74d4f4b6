"""The result of a benchmark: a table to read, or one JSON object."""

from __future__ import annotations

import dataclasses
import datetime
import importlib.metadata
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import rich.box
import rich.console
import rich.table

from raysys import artifacts
from raysys.bench.measure import CaseResult, ContenderResult
from raysys.config.store import without_password

_LIBRARIES = ("ray", "webdataset", "torch", "transformers", "pillow", "pyarrow", "numpy")
_WIDTH = 150


@dataclass(frozen=True)
class Report:
    """The results of a benchmark, the environment it ran in, and conclusions."""

    bench: str
    environment: dict[str, str]
    results: Sequence[CaseResult]
    conclusions: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """The complete report as a JSON-compatible object."""
        return dataclasses.asdict(self)

    def print_table(self, out: TextIO) -> None:
        """Print one row per contender, then the conclusions and the environment."""
        console = rich.console.Console(file=out, width=_WIDTH)
        console.print(_table(self.results))
        for line in self.conclusions:
            console.print(line, markup=False, highlight=False)
        console.print(
            ", ".join(f"{key} {value}" for key, value in self.environment.items()),
            markup=False,
            highlight=False,
        )


def describe_environment(command: Sequence[str]) -> dict[str, str]:
    """Date, commit, hardware, library versions and command of this run."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": artifacts.code_version(),
        "hardware": f"{os.cpu_count()} cores, {_cpu_model()}, {platform.machine()}, {platform.system()}",
        "versions": f"Python {platform.python_version()}, {versions}",
        "command": without_password(" ".join(command)),
    }


def _cpu_model() -> str:
    """The processor's name; read from /proc/cpuinfo, which only Linux has."""
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


def _table(results: Sequence[CaseResult]) -> rich.table.Table:
    metrics = _metric_names(results)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for title in ("case", "contender"):
        table.add_column(title)
    unit = results[0].unit
    for title in (f"{unit} [min, max]", "vs baseline", "vs limit", "peak MB", "object store MB", *metrics):
        table.add_column(title, justify="right")
    for result in results:
        for number, (name, contender) in enumerate(result.contenders.items()):
            table.add_row(result.case if number == 0 else "", name, *_cells(contender, metrics))
        table.add_section()
    return table


def _cells(contender: ContenderResult, metrics: Sequence[str]) -> Iterator[str]:
    rate = contender.rate
    yield f"{rate.median:,.1f} \\[{rate.min:,.1f}, {rate.max:,.1f}]"
    yield f"{contender.vs_baseline:.2f}"
    yield f"{contender.vs_limit:.2f}"
    yield f"{contender.peak_memory_bytes / 1e6:,.0f}"
    yield f"{contender.object_store_bytes / 1e6:,.0f}" if contender.object_store_bytes else ""
    for name in metrics:
        yield f"{contender.metrics[name].median:,.2f}" if name in contender.metrics else ""


def _metric_names(results: Sequence[CaseResult]) -> list[str]:
    """The names of all metrics that any contender has, in order of first appearance."""
    contenders = (contender for result in results for contender in result.contenders.values())
    return list(dict.fromkeys(name for contender in contenders for name in contender.metrics))
