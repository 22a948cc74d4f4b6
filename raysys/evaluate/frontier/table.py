"""The frontier as a table for a terminal and in Markdown, and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from raysys.evaluate.formatting import aligned, format_interval, format_percent, format_value, interval_json
from raysys.evaluate.frontier.measure import LeftOut, Row, pareto_optimal
from raysys.evaluate.plots import metric_label

BYTES, LATENCY = "bytes", "latency"
_MARKS = {BYTES: "*", LATENCY: "+"}
MAX_LOSS = 0.01  # the published loss of 128 of 768 dimensions is 2.3 % (Mercari, arXiv 2510.13359)


@dataclass(frozen=True)
class Frontier:
    """What was measured."""

    name: str
    rows: Sequence[Row]
    """The first one is the full space in fp32."""
    left_out: Sequence[LeftOut]
    absent: Mapping[str, str]
    """Metric -> why it was not measured."""
    simulated: bool
    num_items: int
    """Of the EmbeddingSet."""
    num_searched: int
    """Items of its sample, among which recall and latency are measured."""
    num_queries: int
    """Of the recall."""
    provenance: Mapping[str, str]
    warnings: Sequence[str] = ()
    """What a reader of the intervals must know, one sentence each."""

    @property
    def metrics(self) -> list[str]:
        """The metrics that were measured: on the log, on attributes, recall."""
        recall, *others = self.rows[0].metrics
        return [*others, recall]

    def optimal(self, metric: str, cost: str) -> list[bool]:
        """Whether each row is Pareto-optimal: the metric against `BYTES` or `LATENCY`."""
        values = np.array([row.metrics[metric].value for row in self.rows])
        costs = np.array([cost_of(row, cost) for row in self.rows])
        return [bool(is_optimal) for is_optimal in pareto_optimal(costs, values)]


def cost_of(row: Row, cost: str) -> float:
    """Bytes of a vector, or the median latency in ms."""
    return row.bytes_per_vector if cost == BYTES else row.latency.p50_ms


def frontier_json(frontier: Frontier) -> dict[str, Any]:
    """The frontier as JSON-safe values."""
    optimal = {
        cost: {metric: frontier.optimal(metric, cost) for metric in frontier.metrics} for cost in _MARKS
    }
    return {
        "name": frontier.name,
        "simulated": frontier.simulated,
        "items": frontier.num_items,
        "searched": frontier.num_searched,
        "queries": frontier.num_queries,
        "rows": [
            {
                "dimensions": row.dimensions,
                "encoding": row.encoding.name,
                "factory": row.encoding.factory,
                "bytes_per_vector": row.bytes_per_vector,
                "p50_ms": row.latency.p50_ms,
                "p99_ms": row.latency.p99_ms,
                "metrics": {name: interval_json(value) for name, value in row.metrics.items()},
                "changes": {name: interval_json(value) for name, value in row.changes.items()},
                "pareto": {
                    cost: [metric for metric, flags in by_metric.items() if flags[number]]
                    for cost, by_metric in optimal.items()
                },
            }
            for number, row in enumerate(frontier.rows)
        ],
        "left_out": [vars(left_out) for left_out in frontier.left_out],
        "absent": dict(frontier.absent),
        "facts": dict(frontier.provenance),
    }


def frontier_lines(frontier: Frontier) -> list[str]:
    """The table and its notes for a terminal."""
    return [
        *aligned(_table(frontier)),
        *(f" frontier  {note}" for note in _notes(frontier)),
        *(f"   result  {sentence}" for sentence in _results(frontier)),
    ]


def frontier_markdown(frontier: Frontier, plot: str) -> str:
    """The same as a page that shows the file `plot`."""
    header, *rows = _table(frontier)
    lines = [
        f"# {frontier.name}: bytes and latency against quality",
        "",
        *(f"- {sentence}" for sentence in (*_results(frontier), *_notes(frontier))),
        *(f"- {name}: {value}" for name, value in frontier.provenance.items()),
        "",
        f"![{', '.join(map(metric_label, frontier.metrics))} against bytes and latency]({plot})",
        "",
        *("| " + " | ".join(cells) + " |" for cells in (header, ["---"] * len(header), *rows)),
    ]
    return "\n".join(lines) + "\n"


def _table(frontier: Frontier) -> list[list[str]]:
    """A header, and a row of cells for each row."""
    changed = [metric for metric in frontier.metrics if metric in frontier.rows[-1].changes]
    header = ["dimensions", "encoding", "bytes"]
    for metric in frontier.metrics:
        header.append(metric_label(metric))
        if metric in changed:
            header.append("change")
    flags = {(metric, cost): frontier.optimal(metric, cost) for metric in frontier.metrics for cost in _MARKS}
    table = [[*header, "p50 ms", "p99 ms"]]
    for number, row in enumerate(frontier.rows):
        cells = [str(row.dimensions), row.encoding.name, str(row.bytes_per_vector)]
        for metric in frontier.metrics:
            marks = "".join(mark for cost, mark in _MARKS.items() if flags[metric, cost][number])
            cells.append(f"{format_value(row.metrics[metric].value)} {marks}".rstrip())
            if metric in changed:
                cells.append(format_interval(row.changes.get(metric), format_percent))
        table.append([*cells, format_value(row.latency.p50_ms), format_value(row.latency.p99_ms)])
    return table


def _notes(frontier: Frontier) -> list[str]:
    """What a reader of the table must know, a sentence each."""
    items = f"{frontier.num_searched:,} items"
    if frontier.num_searched < frontier.num_items:
        items = f"a random {frontier.num_searched:,} of {frontier.num_items:,} items"
    recall = frontier.metrics[-1]
    notes = ["change: against the first row, with its 95% interval, paired by query"]
    if not frontier.rows[-1].changes:
        notes = []
    notes += [
        f"{recall} of {frontier.num_queries:,} queries against exact search in the full space, and latency "
        f"of one query on one thread, by exhaustive search among {items}",
        f"{_MARKS[BYTES]} Pareto-optimal against bytes, {_MARKS[LATENCY]} against p50: no other row costs as "
        "little and is better, or costs less and is as good",
    ]
    notes += [f"no {metric_label(metric)}: {reason}" for metric, reason in frontier.absent.items()]
    notes += [
        f"left out: {left_out.dimensions} dimensions"
        + (f" in {left_out.encoding}" if left_out.encoding else "")
        + f": {left_out.reason}"
        for left_out in frontier.left_out
    ]
    if frontier.simulated:
        notes.append("SIMULATED LOG: taps were generated from item attributes, not recorded from people")
    return [*notes, *frontier.warnings]


def _results(frontier: Frontier) -> list[str]:
    """For each metric that can be lost: the fewest bytes that lose little of it."""
    return [
        f"{metric_label(metric)}: at most {MAX_LOSS:.0%} is lost {_shortest(frontier, metric, bound)}"
        for metric in frontier.rows[0].metrics
        if metric in frontier.rows[-1].changes
        for bound in ("value", "low")
    ]


def _shortest(frontier: Frontier, metric: str, bound: str) -> str:
    """The row of the fewest bytes that loses little by this bound, as the end of a sentence."""
    certainty = "as measured" if bound == "value" else "by the low end of the interval"
    kept = [row for row in frontier.rows[1:] if getattr(row.changes[metric], bound) >= -MAX_LOSS]
    if not kept:
        return f"in no other row ({certainty})"
    row = min(kept, key=lambda row: row.bytes_per_vector)
    change = format_interval(row.changes[metric], format_percent)
    return (
        f"with {row.bytes_per_vector} of {frontier.rows[0].bytes_per_vector} bytes, {row.dimensions} "
        f"dimensions in {row.encoding.name}: {change} ({certainty})"
    )
