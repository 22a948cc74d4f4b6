"""The plots of a report, as inline SVG that takes its colours from the page's style, light or dark."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysys.encoder.interpolation import SCORE, Interpolation
from raysys.evaluate.significance import Interval

ZERO_SHOT, FINE_TUNED, WISE_FT, CHANCE = "zero_shot", "fine_tuned", "wise_ft", "chance"
MAIN_METRIC = "ndcg@5"

# Plots are drawn in these placeholder colours, which the page's style gives a light and a dark value.
_PAINT = {
    "#010101": "--ink",
    "#020202": "--muted",
    "#030303": "--line",
    "#040404": "--accent",
    "#050505": "--plain",
    "#060606": "--paper",
}
_INK, _MUTED, _LINE, _ACCENT, _PLAIN, _PAPER = _PAINT
_WIDTH_IN = 5.2
_MEASURED_BY_STEP = {
    "loss": "loss",
    "val_r@1": "R@1 on validation pairs: a photo finds its own title first",
    "val_ndcg@5": "nDCG@5 on a log of validation items",
}


def heading(metric: str) -> str:
    return metric.replace("ndcg@", "nDCG@").replace("p@", "P@").replace("r@", "R@")


def is_tuned(rung: str) -> bool:
    """Whether a rung shows what training made."""
    return rung == WISE_FT or rung.startswith(FINE_TUNED)


def order_plot(ndcg: Mapping[str, Interval]) -> str | None:
    """nDCG@5 of each rung with its interval, as dots and whiskers."""
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
                      va="center", color=_INK, fontsize=9.5)  # fmt: skip
    zero_shot = ndcg.get(ZERO_SHOT)
    if zero_shot is not None:
        axes.axvline(zero_shot.value, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    _label_rows(axes, list(ndcg))
    axes.margins(x=0.12)
    axes.set_xlabel("nDCG@5, with its 95% interval")
    return _svg(figure, "nDCG@5 of every rung with its 95% interval")


def shelf_plot(shelf: Mapping[str, Mapping[str, Interval] | float]) -> str | None:
    """Precision of the nearest items, one panel a question, one bar a rung."""
    scored = {name: scores for name, scores in shelf.items() if isinstance(scores, Mapping)}
    metrics = list(dict.fromkeys(metric for scores in scored.values() for metric in scores))
    if not metrics:
        return None
    figure = _figure(0.9 + 0.3 * len(scored))
    panels = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for row, (name, scores) in enumerate(scored.items()):
            if metric in scores:
                _bar(axes, row, scores[metric], _colour_of(name))
        axes.set_title(heading(metric).replace(" ", "\n", 1), loc="left", fontsize=10, color=_INK)
        axes.margins(x=0.3)
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=3)
    chance = shelf.get(CHANCE)
    if isinstance(chance, int | float):
        panels[0].axvline(chance, color=_INK, linewidth=1, linestyle=(0, (3, 3)))
        panels[0].set_xlabel(f"dashed: chance, {chance:.3f}")
    _label_rows(panels[0], list(scored))
    return _svg(figure, "Precision of the nearest items for every rung")


def _bar(axes: Axes, row: int, interval: Interval, colour: str) -> None:
    axes.barh(row, interval.value, height=0.62, color=colour, alpha=0.75)
    axes.plot([interval.low, interval.high], [row, row], color=_INK, linewidth=1.2)
    axes.annotate(f"{interval.value:.2f}", (interval.high, row), (4, 0), textcoords="offset points",
                  va="center", color=_INK, fontsize=9)  # fmt: skip


def loss_plot(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Loss by step, and below it what was measured on the validation split, from zero-shot on."""
    curves = {title: list(_points(rows, key)) for key, title in _MEASURED_BY_STEP.items()}
    drawn = {title: points for title, points in curves.items() if points}
    if not drawn:
        return None
    figure = _figure(1.75 * len(drawn))
    panels = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, points) in zip(panels, drawn.items(), strict=True):
        axes.plot(*zip(*points, strict=True), "-" if title == "loss" else "-o", color=_ACCENT, linewidth=1.6,
                  markersize=5)  # fmt: skip
        first_step, first = points[0]
        if first_step == 0 and title != "loss":
            axes.axhline(first, color=_PLAIN, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
    panels[-1].set_xlabel("step")
    return _svg(figure, "Training loss, and what was measured on the validation split, by step")


def interpolation_plot(found: Interpolation) -> str:
    """Score and guard from the start's weights to the fine-tuned ones, and where between them was chosen."""
    score = [(point.alpha, point.metrics[SCORE]) for point in found.points if point.metrics]
    guard = [(point.alpha, point.retention) for point in found.points]
    titles = {
        f"{heading(found.score)} on the validation split": score,
        "guard: R@5 outside the domain": guard,
    }
    drawn = {title: curve for title, curve in titles.items() if curve}
    figure = _figure(0.5 + 1.7 * len(drawn))
    panels = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, curve) in zip(panels, drawn.items(), strict=True):
        axes.axvline(found.alpha, color=_ACCENT, linewidth=1, linestyle=(0, (2, 3)), zorder=0)
        _curve(axes, curve, found)
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
        axes.margins(x=0.04, y=0.32)
    panels[-1].axhline(found.min_retention, color=_PLAIN, linewidth=1.2, linestyle=(0, (4, 3)))
    panels[-1].annotate(f"least allowed {found.min_retention:.3f}", (0, found.min_retention), (2, -11),
                        textcoords="offset points", color=_PLAIN, fontsize=9)  # fmt: skip
    panels[-1].set_xticks([0, 0.25, 0.5, 0.75, 1], ["0\nstart", "0.25", "0.5", "0.75", "1\nfine-tuned"])
    return _svg(figure, "Score and guard between the start's weights and the fine-tuned ones")


def _curve(axes: Axes, curve: list[tuple[float, float]], found: Interpolation) -> None:
    """The points of one figure: hollow where the guard forbids them, large where one was chosen."""
    axes.plot(*zip(*curve, strict=True), color=_MUTED, linewidth=1.6, zorder=1)
    for a, value in curve:
        is_chosen, is_allowed = a == found.alpha, found.at(a).retention >= found.min_retention
        axes.plot(a, value, "o", color=_ACCENT if is_chosen else _MUTED, markersize=9 if is_chosen else 5.5,
                  markerfacecolor=None if is_allowed else _PAPER, zorder=2)  # fmt: skip
        if is_chosen:
            axes.annotate(f"{value:.3f}", (a, value), (0, 11), textcoords="offset points", ha="center",
                          color=_INK, fontsize=9.5, zorder=3,
                          bbox={"facecolor": _PAPER, "edgecolor": "none", "pad": 1})  # fmt: skip


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> Iterator[tuple[float, float]]:
    for row in rows:
        value = row.get(key)
        if value is not None and math.isfinite(value):
            yield row["step"], value


def _colour_of(rung: str) -> str:
    if rung == ZERO_SHOT:
        return _PLAIN
    return _ACCENT if is_tuned(rung) else _MUTED


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(names) - 0.4, -0.6)


def _figure(height_in: float) -> Figure:
    return Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")


def _svg(figure: Figure, description: str) -> str:
    """The drawing as an inline `<svg>` that scales with the page and takes its colours from it."""
    for axes in figure.axes:
        axes.set_facecolor("none")
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_LINE)
        axes.tick_params(color=_LINE, labelcolor=_MUTED, labelsize=9.5)
        axes.xaxis.label.set_color(_MUTED)
    drawing = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": description}):
        figure.savefig(drawing, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = drawing.getvalue().partition("<svg ")[2]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', "", svg, count=1)  # as wide as the page lets it be
    for placeholder, variable in _PAINT.items():
        svg = svg.replace(placeholder, f"var({variable})")
    return f'<svg role="img" aria-label="{description}" {svg}'
