"""What a bench found, as a table for people and as one object for programs."""

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
from raysys.bench.measure import Finding, Standing

_LIBRARIES = ("ray", "webdataset", "torch", "transformers", "pillow", "pyarrow", "numpy")
_WIDTH = 150


@dataclass(frozen=True)
class Report:
    """A bench: what was measured, where and how, and what follows."""

    bench: str
    facts: dict[str, str]
    findings: Sequence[Finding]
    conclusions: Sequence[str]

    def as_json(self) -> dict[str, Any]:
        """Everything, as an object that JSON can hold."""
        return dataclasses.asdict(self)

    def print_table(self, out: TextIO) -> None:
        """A row a contender, then the facts and what follows."""
        console = rich.console.Console(file=out, width=_WIDTH)
        console.print(_table(self.findings))
        for line in self.conclusions:
            console.print(line, markup=False, highlight=False)
        console.print(", ".join(f"{key} {value}" for key, value in self.facts.items()), highlight=False)


def facts(command: Sequence[str]) -> dict[str, str]:
    """When, where and with what a bench ran."""
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": artifacts.code_version(),
        "hardware": f"{os.cpu_count()} cores, {_cpu_model()}, {platform.machine()}, {platform.system()}",
        "versions": f"Python {platform.python_version()}, {versions}",
        "command": " ".join(command),
    }


def _cpu_model() -> str:
    """The processor's name; only Linux tells it in a file."""
    listing = Path("/proc/cpuinfo")
    lines = listing.read_text(encoding="utf-8").splitlines() if listing.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or "unknown processor")


def _table(findings: Sequence[Finding]) -> rich.table.Table:
    figures = _figures(findings)
    table = rich.table.Table(box=rich.box.SIMPLE_HEAD)
    for title in ("case", "contender"):
        table.add_column(title)
    unit = findings[0].unit
    for title in (f"{unit} [min, max]", "of peer", "of limit", "peak MB", "object store MB", *figures):
        table.add_column(title, justify="right")
    for finding in findings:
        for number, (name, standing) in enumerate(finding.contenders.items()):
            table.add_row(finding.case if number == 0 else "", name, *_cells(standing, figures))
        table.add_section()
    return table


def _cells(standing: Standing, figures: Sequence[str]) -> Iterator[str]:
    rate = standing.rate
    yield f"{rate.median:,.1f} \\[{rate.min:,.1f}, {rate.max:,.1f}]"
    yield f"{standing.to_peer:.2f}"
    yield f"{standing.to_limit:.2f}"
    yield f"{standing.peak_memory_bytes / 1e6:,.0f}"
    yield f"{standing.object_store_bytes / 1e6:,.0f}" if standing.object_store_bytes else ""
    for name in figures:
        yield f"{standing.figures[name].median:,.2f}" if name in standing.figures else ""


def _figures(findings: Sequence[Finding]) -> list[str]:
    """Every further figure that some contender has, in the order they come."""
    standings = (standing for finding in findings for standing in finding.contenders.values())
    return list(dict.fromkeys(name for standing in standings for name in standing.figures))
