"""The plots of a report, as inline SVG with the page's colour variables (light and dark)."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysys.config.schema import CHANCE
from raysys.encoder.interpolation import SCORE, Interpolation
from raysys.evaluate.reranking import FINE_TUNED, WISE_FT, ZERO_SHOT
from raysys.evaluate.significance import Interval

# Placeholder colours of the plots -> CSS variables of the page, which have a light and a dark value.
_COLOUR_TO_VARIABLE = {
    "#010101": "--ink",
    "#020202": "--muted",
    "#030303": "--line",
    "#040404": "--accent",
    "#050505": "--plain",
    "#060606": "--paper",
}
_INK, _MUTED, _LINE, _ACCENT, _PLAIN, _PAPER = _COLOUR_TO_VARIABLE
_ON_PAPER = {"facecolor": _PAPER, "edgecolor": "none", "pad": 1}  # text that no line crosses
_WIDTH_IN = 5.2
_CURVE_TITLES = {
    "loss": "loss",
    "val_r@1": "R@1 on validation pairs, from photo to title",
    "val_ndcg@5": "nDCG@5 on a log of validation items",
}


def metric_label(metric: str) -> str:
    """A metric's name as it is written in text: `ndcg@5` -> `nDCG@5`."""
    return metric.replace("ndcg@", "nDCG@").replace("p@", "P@").replace("r@", "R@")


def is_fine_tuned(system: str) -> bool:
    """Whether a system uses fine-tuned weights."""
    return system == WISE_FT or system.startswith(FINE_TUNED)


def ndcg_plot(ndcg: Mapping[str, Interval], compare_to: str) -> str | None:
    """nDCG@5 of each system as a dot with its interval as a line; None without systems.

    A dashed line marks the value of the system `compare_to`.
    """
    if not ndcg:
        return None
    figure = _figure(0.7 + 0.34 * len(ndcg))
    axes = figure.subplots()
    for row, (name, interval) in enumerate(ndcg.items()):
        colour = _colour_of(name)
        axes.plot(
            [interval.low, interval.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round"
        )
        axes.plot(interval.value, row, "o", color=colour, markersize=7)
        axes.annotate(f"{interval.value:.3f}", (interval.high, row), (7, 0), textcoords="offset points",
                      va="center", color=_INK, fontsize=9.5, bbox=_ON_PAPER)  # fmt: skip
    reference = ndcg.get(compare_to)
    if reference is not None:
        axes.axvline(reference.value, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    _label_rows(axes, list(ndcg))
    axes.margins(x=0.12)
    axes.set_xlabel("nDCG@5, with its 95% interval")
    return _svg(figure, "nDCG@5 of every system with its 95% interval")


def attribute_precision_plot(results: Mapping[str, Mapping[str, Interval] | float]) -> str | None:
    """One panel for each metric, with one bar for each system; None without systems."""
    systems = {name: result for name, result in results.items() if isinstance(result, Mapping)}
    metrics = list(dict.fromkeys(metric for result in systems.values() for metric in result))
    if not metrics:
        return None
    figure = _figure(0.9 + 0.3 * len(systems))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for row, (name, result) in enumerate(systems.items()):
            if metric in result:
                _plot_bar(axes, row, result[metric], _colour_of(name))
        axes.set_title(metric_label(metric).replace(" ", "\n", 1), loc="left", fontsize=10, color=_INK)
        axes.margins(x=0.3)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=3)
    chance = results.get(CHANCE)
    if isinstance(chance, int | float):
        panels[0].axvline(chance, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
        panels[0].set_xlabel(f"dashed: chance, {chance:.3f}")
    _label_rows(panels[0], list(systems))
    return _svg(figure, "Attribute precision of every system")


def _plot_bar(axes: Axes, row: int, interval: Interval, colour: str) -> None:
    axes.barh(row, interval.value, height=0.62, color=colour, alpha=0.75)
    axes.plot([interval.low, interval.high], [row, row], color=_INK, linewidth=1.2)
    axes.annotate(f"{interval.value:.2f}", (interval.high, row), (4, 0), textcoords="offset points",
                  va="center", color=_INK, fontsize=9)  # fmt: skip


def training_plot(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Training loss and validation metrics by step, one panel each; None without values.

    A dashed line marks the start encoder's value (step 0).
    """
    candidates = {title: list(_finite_points(rows, key)) for key, title in _CURVE_TITLES.items()}
    curves = {title: points for title, points in candidates.items() if points}
    if not curves:
        return None
    figure = _figure(1.75 * len(curves))
    panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, points) in zip(panels, curves.items(), strict=True):
        axes.plot(*zip(*points, strict=True), "-" if title == "loss" else "-o", color=_ACCENT, linewidth=1.6,
                  markersize=5)  # fmt: skip
        first_step, first_value = points[0]
        if first_step == 0 and title != "loss":
            axes.axhline(first_value, color=_PLAIN, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
    panels[-1].set_xlabel("step")
    return _svg(figure, "Training loss and validation metrics by step")


def interpolation_plot(interpolation: Interpolation) -> str:
    """Validation score and retention check from the start's weights to the fine-tuned ones."""
    score = [(point.alpha, point.metrics[SCORE]) for point in interpolation.points if point.metrics]
    retention = [(point.alpha, point.retention) for point in interpolation.points]
    candidates = {
        f"{metric_label(interpolation.score)} on the validation split": score,
        "retention check: R@5 on pairs from outside the domain": retention,
    }
    curves = {title: curve for title, curve in candidates.items() if curve}
    figure = _figure(0.5 + 1.7 * len(curves))
    panels = figure.subplots(len(curves), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, curve) in zip(panels, curves.items(), strict=True):
        axes.axvline(interpolation.alpha, color=_ACCENT, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
        _plot_curve(axes, curve, interpolation)
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        axes.margins(x=0.04, y=0.32)
    floor = interpolation.min_retention
    panels[-1].axhline(floor, color=_PLAIN, linewidth=1.2, linestyle=(0, (4, 3)))
    panels[-1].annotate(f"minimum {floor:.3f}", (1, floor), (-6, -11), textcoords="offset points", ha="right",
                        color=_PLAIN, fontsize=9)  # fmt: skip
    panels[-1].set_xticks([0, 0.25, 0.5, 0.75, 1], ["0\nstart", "0.25", "0.5", "0.75", "1\nfine-tuned"])
    panels[-1].set_xlabel("alpha")
    return _svg(figure, "Validation score and retention check by interpolation weight alpha")


def _plot_curve(axes: Axes, curve: list[tuple[float, float]], interpolation: Interpolation) -> None:
    """The points of one metric: hollow where the retention check is below its minimum, large where chosen."""
    axes.plot(*zip(*curve, strict=True), color=_MUTED, linewidth=1.6, zorder=1)
    for alpha, value in curve:
        is_chosen = alpha == interpolation.alpha
        is_allowed = interpolation.at(alpha).retention >= interpolation.min_retention
        axes.plot(alpha, value, "o", color=_ACCENT if is_chosen else _MUTED,
                  markersize=9 if is_chosen else 5.5, markerfacecolor=None if is_allowed else _PAPER,
                  zorder=2)  # fmt: skip
        if is_chosen:
            axes.annotate(f"{value:.3f}", (alpha, value), (0, 11), textcoords="offset points", ha="center",
                          color=_INK, fontsize=9.5, zorder=3, bbox=_ON_PAPER)  # fmt: skip


def _finite_points(rows: Sequence[Mapping[str, Any]], key: str) -> Iterator[tuple[float, float]]:
    for row in rows:
        value = row.get(key)
        if value is not None and math.isfinite(value):
            yield row["step"], value


def _colour_of(system: str) -> str:
    if system == ZERO_SHOT:
        return _PLAIN
    return _ACCENT if is_fine_tuned(system) else _MUTED


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _figure(height_in: float) -> Figure:
    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def _svg(figure: Figure, description: str) -> str:
    """The figure as an inline `<svg>` that scales with the page and uses its colour variables."""
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_LINE)
        axes.tick_params(color=_LINE, labelcolor=_MUTED, labelsize=9.5)
        axes.xaxis.label.set_color(_MUTED)
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().partition("<svg ")[2]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)  # the page sets the width
    for placeholder, variable in _COLOUR_TO_VARIABLE.items():
        svg = svg.replace(placeholder, f"var({variable})")
    return f'<svg role="img" aria-label="{description}" {svg}'
