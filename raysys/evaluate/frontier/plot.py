"""The plot of a frontier: each metric against bytes a vector and against latency, as PNG."""

from __future__ import annotations

import io
import itertools

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from raysys.evaluate.frontier.measure import Row
from raysys.evaluate.frontier.table import BYTES, LATENCY, MAX_LOSS, Frontier, cost_of
from raysys.evaluate.plots import metric_label

# Distinct for readers with colour blindness (Okabe & Ito 2008).
_COLOURS = ("#000000", "#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
_MARKERS = "osD^vP*Xph<>"
_COST_LABELS = {BYTES: "bytes a vector", LATENCY: "p50 of one query, ms"}


def frontier_plot(frontier: Frontier) -> bytes:
    """One row of panels for each metric: against bytes, and against latency.

    The colour of a point is its encoding, the shape its number of dimensions. A solid line joins the
    Pareto-optimal points; lines mark the full space and the loss that `Frontier` accepts.
    """
    metrics = frontier.metrics
    figure = Figure(figsize=(11, 1.2 + 3.1 * len(metrics)), layout="constrained")
    panels = figure.subplots(len(metrics), len(_COST_LABELS), sharey="row", sharex="col", squeeze=False)
    for metric, row_of_panels in zip(metrics, panels, strict=True):
        for cost, axes in zip(_COST_LABELS, row_of_panels, strict=True):
            _plot_panel(axes, frontier, metric, cost)
        row_of_panels[0].set_ylabel(metric_label(metric))
    for cost, axes in zip(_COST_LABELS, panels[-1], strict=True):
        axes.set_xlabel(_COST_LABELS[cost])
    _add_legends(figure, frontier)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _plot_panel(axes: Axes, frontier: Frontier, metric: str, cost: str) -> None:
    def point(row: Row) -> tuple[float, float]:
        return cost_of(row, cost), row.metrics[metric].value

    full = frontier.rows[0].metrics[metric].value
    axes.axhline(full, color="#999999", linewidth=1, linestyle="--")
    axes.axhline(full * (1 - MAX_LOSS), color="#999999", linewidth=1, linestyle=":")
    flags = zip(frontier.rows, frontier.optimal(metric, cost), strict=True)
    optimal = sorted(point(row) for row, is_optimal in flags if is_optimal)
    axes.plot(*zip(*optimal, strict=True), color="#bbbbbb", linewidth=1.5, zorder=1)
    colours, markers = _colours(frontier), _markers(frontier)
    for row in frontier.rows:
        axes.plot(*point(row), marker=markers[row.dimensions], color=colours[row.encoding.name],
                  markersize=6.5, alpha=0.85)  # fmt: skip
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee", linewidth=0.8)
    axes.margins(x=0.06, y=0.1)


def _add_legends(figure: Figure, frontier: Frontier) -> None:
    encodings = [
        Line2D([], [], ls="", marker="o", color=colour, label=name)
        for name, colour in _colours(frontier).items()
    ]
    sizes = [
        Line2D([], [], ls="", marker=marker, color="#777777", label=f"{dimensions} dimensions")
        for dimensions, marker in _markers(frontier).items()
    ]
    lines = [
        Line2D([], [], color="#bbbbbb", label="Pareto-optimal"),
        Line2D([], [], color="#999999", ls="--", label="full space"),
        Line2D([], [], color="#999999", ls=":", label=f"{MAX_LOSS:.0%} less"),
    ]
    figure.legend(handles=[*encodings, *lines], loc="outside upper center", ncols=10, frameon=False)
    figure.legend(handles=sizes, loc="outside lower center", ncols=7, frameon=False)


def _colours(frontier: Frontier) -> dict[str, str]:
    names = dict.fromkeys(row.encoding.name for row in frontier.rows)
    return dict(zip(names, itertools.cycle(_COLOURS), strict=False))


def _markers(frontier: Frontier) -> dict[int, str]:
    sizes = dict.fromkeys(row.dimensions for row in frontier.rows)
    return dict(zip(sizes, itertools.cycle(_MARKERS), strict=False))
