"""What evaluation found, in three forms: JSON for programs, a page for people, lines for a terminal.

The page is one file: styles, plots (SVG) and photos stand in it; no script, no network.
"""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from raysys.evaluate.significance import Interval

ZERO_SHOT, FINE_TUNED, CHANCE = "zero_shot", "fine_tuned", "chance"
MAIN_METRIC = "ndcg@5"

WHAT_A_RUNG_IS = {
    "random": "what was shown, in random order",
    "popularity": "items most often tapped elsewhere first",
    "thumbnail": "photos compared as tiny thumbnails, pixel by pixel",
    "mobilenet_v2": "MobileNetV2 (ImageNet), not fine-tuned",
    "zero_shot": "the encoder we start from, before fine-tuning",
    "fine_tuned": "the encoder after fine-tuning",
    "fine_tuned_pca": "its vectors, shortened by principal components",
    "fine_tuned_pca_index": "those vectors as the served index holds them",
}
# Mercari, arXiv 2510.13359: encoder, nDCG@5, hit@1. Their log, not ours.
PUBLISHED = (
    ("MobileNetV2 (ImageNet, not fine-tuned)", "0.607", "0.356"),
    ("fine-tuned SigLIP", "0.662 (+9.1%)", "0.412"),
    ("fine-tuned SigLIP, PCA 128", "0.647 (-2.3%)", "0.406"),
)


@dataclass(frozen=True)
class Rung:
    """One way to order a shelf, and what it scored; `reason` says why it is not available."""

    name: str
    available: bool
    reason: str | None
    metrics: dict[str, Interval]
    """`ndcg@5`, `hit@1`, `hit@3`."""
    lift: Interval | None
    """Relative change of nDCG@5 against zero-shot."""


@dataclass(frozen=True)
class Neighbours:
    """A query and its nearest items by the old and the new encoder: (photo, title, score).

    Photos are embedded as they are: give thumbnails, a few kilobytes each.
    """

    query_title: str
    query_image: bytes
    before: list[tuple[bytes, str, float]]
    after: list[tuple[bytes, str, float]]


@dataclass(frozen=True)
class ReportData:
    """Everything the three forms of the report are made from."""

    name: str
    simulated: bool
    rungs: list[Rung]
    shelf: Mapping[str, Mapping[str, Interval] | float] | None
    """Rung -> `p@5`, `p@5 colour`, .. -> precision; and `chance` -> the `p@5` of a random order."""
    loss_curve: list[dict[str, Any]]
    """Rows with step, and loss, learning_rate, scale, bias, pairs_per_s, or a key that ends in `r@1`."""
    grid: list[Neighbours]
    facts: dict[str, str]
    """What was measured and how: inputs, seed, command, code version, hardware, date, .."""


def report_json(data: ReportData) -> dict[str, Any]:
    """The report as JSON-safe values: a number that is not finite becomes null."""
    report: dict[str, Any] = {
        "name": data.name,
        "simulated": data.simulated,
        "rungs": [_rung_json(rung) for rung in data.rungs],
        "inputs": data.facts.get("inputs", ""),
        "seed": data.facts.get("seed", ""),
        "command": data.facts.get("command", ""),
        "facts": dict(data.facts),
    }
    if data.shelf is not None:
        report["shelf"] = {
            name: _finite(scores)
            if isinstance(scores, int | float)
            else {metric: _interval_json(interval) for metric, interval in scores.items()}
            for name, scores in data.shelf.items()
        }
    return report


def report_lines(data: ReportData) -> list[str]:
    """The rungs as an aligned table for a terminal."""
    metrics = _metric_names(data.rungs)
    rows = [["rung", *(_heading(metric) for metric in metrics), "nDCG@5 against zero_shot"]]
    for rung in data.rungs:
        figures = [_with_bounds(rung.metrics.get(metric), _number) for metric in metrics]
        absent = [rung.name, f"not available: {rung.reason}"]
        rows.append([rung.name, *figures, _with_bounds(rung.lift, _percent)] if rung.available else absent)
    full_rows = [row for row in rows if len(row) == len(rows[0])]
    widths = [
        max(len(row[0]) for row in rows),
        *(max(map(len, cells)) for cells in list(zip(*full_rows, strict=True))[1:]),
    ]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]
    if data.simulated:
        lines.append("SIMULATED LOG: taps were drawn from attributes; no person made them.")
    return lines


def report_html(data: ReportData) -> str:
    """The page: verdict, table, plots, neighbours before and after, and how it was measured."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        data=data,
        heading=_heading,
        number=_number,
        percent=_percent,
        picture=_picture,
        metrics=_metric_names(data.rungs),
        verdict=_verdict(data),
        what_a_rung_is=WHAT_A_RUNG_IS,
        published=PUBLISHED,
        order_plot=_order_plot(data.rungs),
        shelf_plot=_shelf_plot(data.shelf) if data.shelf else None,
        loss_plot=_loss_plot(data.loss_curve),
        training=_training_summary(data.loss_curve),
    )


def _verdict(data: ReportData) -> str:
    """The one sentence that a reader in a hurry takes away."""
    lift = next((rung.lift for rung in data.rungs if rung.name == FINE_TUNED and rung.available), None)
    if lift is None:
        return "Fine-tuning could not be compared with the encoder it started from."
    change = f"nDCG@5 {_percent(lift.value)} ({_percent(lift.low)} to {_percent(lift.high)})"
    log = "On a simulated log, fine-tuning" if data.simulated else "Fine-tuning"
    if lift.low > 0:
        return f"{log} ordered the shelf better: {change}."
    if lift.high < 0:
        return f"{log} ordered the shelf worse: {change}."
    return f"{log} made no difference that this log can show: {change}."


def _training_summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The last figures of the training log in words."""
    latest = {
        key: value for row in rows for key, value in row.items() if value is not None and math.isfinite(value)
    }
    figures = [f"{key.replace('_', ' ')} {value:.4g}" for key, value in latest.items() if key != "step"]
    return f"At the last step ({latest.get('step', 0):.0f}): {', '.join(figures)}."


def _metric_names(rungs: Sequence[Rung]) -> list[str]:
    return list(dict.fromkeys(metric for rung in rungs for metric in rung.metrics)) or [MAIN_METRIC]


def _heading(metric: str) -> str:
    return metric.replace("ndcg@", "nDCG@").replace("p@", "P@")


def _with_bounds(interval: Interval | None, show: Callable[[float], str]) -> str:
    return f"{show(interval.value)} [{show(interval.low)}, {show(interval.high)}]" if interval else "-"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%"


def _rung_json(rung: Rung) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": rung.name,
        "available": rung.available,
        "reason": rung.reason,
        "metrics": {metric: _interval_json(interval) for metric, interval in rung.metrics.items()},
    }
    return entry if rung.lift is None else {**entry, "lift_vs_zero_shot": _interval_json(rung.lift)}


def _interval_json(interval: Interval) -> dict[str, float | None]:
    return {"value": _finite(interval.value), "low": _finite(interval.low), "high": _finite(interval.high)}


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _picture(data: bytes) -> str:
    """A photo as a `data:` URI."""
    signatures = ((b"\x89PNG", "png"), (b"RIFF", "webp"), (b"GIF8", "gif"))
    kind = next((kind for start, kind in signatures if data.startswith(start)), "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


# Plots are drawn in these placeholder colours, which the page's style gives a light and a dark value.
_PAINT = {
    "#010101": "--ink",
    "#020202": "--muted",
    "#030303": "--line",
    "#040404": "--accent",
    "#050505": "--plain",
}
_INK, _MUTED, _LINE, _ACCENT, _PLAIN = _PAINT
_WIDTH_IN = 5.2


def _order_plot(rungs: Sequence[Rung]) -> str | None:
    """nDCG@5 of each rung with its interval, as dots and whiskers."""
    measured = [
        (rung.name, rung.metrics[MAIN_METRIC])
        for rung in rungs
        if rung.available and MAIN_METRIC in rung.metrics
    ]
    if not measured:
        return None
    figure = _figure(0.7 + 0.34 * len(measured))
    axes = figure.subplots()
    for row, (name, interval) in enumerate(measured):
        colour = _colour_of(name)
        axes.plot(
            [interval.low, interval.high], [row, row], color=colour, linewidth=2.2, solid_capstyle="round"
        )
        axes.plot(interval.value, row, "o", color=colour, markersize=7)
        axes.annotate(f"{interval.value:.3f}", (interval.high, row), (7, 0), textcoords="offset points",
                      va="center", color=_INK, fontsize=9.5)  # fmt: skip
    zero_shot = dict(measured).get(ZERO_SHOT)
    if zero_shot is not None:
        axes.axvline(zero_shot.value, color=_MUTED, linewidth=1, linestyle=(0, (3, 3)), zorder=0)
    _label_rows(axes, [name for name, _ in measured])
    axes.margins(x=0.12)
    axes.set_xlabel("nDCG@5, with its 95% interval")
    return _svg(figure, "nDCG@5 of every rung with its 95% interval")


def _shelf_plot(shelf: Mapping[str, Mapping[str, Interval] | float]) -> str | None:
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
        axes.set_title(_heading(metric).replace(" ", "\n", 1), loc="left", fontsize=10, color=_INK)
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


def _loss_plot(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """Loss by step, and below it retrieval on the validation pairs where it was measured."""
    checked = next((key for row in rows for key in row if key.lower().endswith("r@1")), "")
    curves = {
        "loss": ("-", list(_points(rows, "loss"))),
        "R@1 on validation pairs: a photo finds its own title first": ("-o", list(_points(rows, checked))),
    }
    drawn = {title: curve for title, curve in curves.items() if curve[1]}
    if not drawn:
        return None
    figure = _figure(1.9 * len(drawn))
    panels = figure.subplots(len(drawn), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, (style, points)) in zip(panels, drawn.items(), strict=True):
        axes.plot(*zip(*points, strict=True), style, color=_ACCENT, linewidth=1.6, markersize=5)
        axes.set_title(title, loc="left", fontsize=10, color=_INK)
        axes.grid(axis="y", color=_LINE, linewidth=0.8)
    panels[-1].set_xlabel("step")
    return _svg(figure, "Training loss, and retrieval on validation pairs, by step")


def _points(rows: Sequence[Mapping[str, Any]], key: str) -> Iterator[tuple[float, float]]:
    for row in rows:
        value = row.get(key)
        if value is not None and math.isfinite(value):
            yield row["step"], value


def _colour_of(rung: str) -> str:
    if rung == ZERO_SHOT:
        return _PLAIN
    return _ACCENT if rung.startswith(FINE_TUNED) else _MUTED


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
