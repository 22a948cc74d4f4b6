"""What evaluation found, in three forms: JSON for programs, a page for people, lines for a terminal.

The page is one file: styles, plots (SVG) and photos stand in it; no script, no network.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raysys.encoder.interpolation import SCORE, Interpolation
from raysys.evaluate import plots
from raysys.evaluate.plots import FINE_TUNED, MAIN_METRIC, WISE_FT, heading, is_tuned
from raysys.evaluate.significance import Interval

WHAT_A_RUNG_IS = {
    "random": "what was shown, in random order",
    "popularity": "items most often tapped elsewhere first",
    "thumbnail": "photos compared as tiny thumbnails, pixel by pixel",
    "mobilenet_v2": "MobileNetV2 (ImageNet), not fine-tuned",
    "zero_shot": "the encoder we start from, before fine-tuning",
    "fine_tuned": "the encoder after fine-tuning",
    "wise_ft": "weights between both: the best that still knew the rest",
    "fine_tuned_pca": "the delivered vectors, shortened by principal components",
    "fine_tuned_pca_index": "those vectors as the served index holds them",
}
# Mercari, arXiv 2510.13359: encoder, nDCG@5, hit@1. Their log, not ours.
PUBLISHED = (
    ("MobileNetV2 (ImageNet, not fine-tuned)", "0.607", "0.356"),
    ("fine-tuned SigLIP", "0.662 (+9.1%)", "0.412"),
    ("fine-tuned SigLIP, PCA 128", "0.647 (-2.3%)", "0.406"),
)


@dataclass(frozen=True)
class SystemResult:
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
    rungs: list[SystemResult]
    shelf: Mapping[str, Mapping[str, Interval] | float] | None
    """SystemResult -> `p@5`, `p@5 colour`, .. -> precision; and `chance` -> the `p@5` of a random order."""
    loss_curve: list[dict[str, Any]]
    """Rows with step, and loss, learning_rate, scale, bias, pairs_per_s, `val_r@1`, `val_ndcg@5`."""
    grid: list[Neighbours]
    interpolation: Interpolation | None
    """How the delivered weights were chosen between the start and the fine-tuned ones."""
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
    if data.interpolation is not None:
        report["interpolation"] = data.interpolation.model_dump(mode="json")
    return report


def report_lines(data: ReportData) -> list[str]:
    """The rungs as an aligned table for a terminal."""
    metrics = _metric_names(data.rungs)
    rows = [["rung", *(heading(metric) for metric in metrics), "nDCG@5 against zero_shot"]]
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
    ndcg = {rung.name: rung.metrics[MAIN_METRIC] for rung in data.rungs if MAIN_METRIC in rung.metrics}
    return environment.get_template("report.html.j2").render(
        data=data,
        heading=heading,
        number=_number,
        percent=_percent,
        picture=_picture,
        metrics=_metric_names(data.rungs),
        verdict=_verdict(data),
        what_a_rung_is=WHAT_A_RUNG_IS,
        is_tuned=is_tuned,
        published=PUBLISHED,
        order_plot=plots.order_plot(ndcg),
        shelf_plot=plots.shelf_plot(data.shelf) if data.shelf else None,
        loss_plot=plots.loss_plot(data.loss_curve),
        interpolation_plot=plots.interpolation_plot(data.interpolation) if data.interpolation else None,
        choice=_choice(data.interpolation) if data.interpolation else "",
        training=_training_summary(data.loss_curve),
        is_measured=any(row["step"] == 0 and "val_r@1" in row for row in data.loss_curve),
    )


def _verdict(data: ReportData) -> str:
    """The one sentence that a reader in a hurry takes away."""
    lifts = {rung.name: rung.lift for rung in data.rungs if rung.available}
    lift = lifts.get(WISE_FT, lifts.get(FINE_TUNED))
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
    told = [key for key in latest if key not in ("step", "val_score") and not key.endswith("_gain")]
    figures = [f"{key.replace('_', ' ')} {latest[key]:.4g}" for key in told]
    last = max((row["step"] for row in rows), default=0)
    return f"At the last step ({last:.0f}): {', '.join(figures)}."


def _choice(found: Interpolation) -> str:
    """What was chosen between the start and the fine-tuned weights, in words."""
    start, chosen, tuned = found.points[0], found.at(found.alpha), found.points[-1]
    told = [f"Chosen: a = {found.alpha:g}."]
    if chosen.metrics:
        told.append(
            f"{heading(found.score)} is {chosen.metrics[SCORE]:.3f} there, {start.metrics[SCORE]:.3f} at the "
            f"start and {tuned.metrics[SCORE]:.3f} at the end."
        )
    told.append(
        f"The guard is {chosen.retention:.3f} there, {start.retention:.3f} at the start and "
        f"{tuned.retention:.3f} at the end; {found.min_retention:.3f} was the least allowed."
    )
    return " ".join(told)


def _metric_names(rungs: Sequence[SystemResult]) -> list[str]:
    return list(dict.fromkeys(metric for rung in rungs for metric in rung.metrics)) or [MAIN_METRIC]


def _with_bounds(interval: Interval | None, show: Callable[[float], str]) -> str:
    return f"{show(interval.value)} [{show(interval.low)}, {show(interval.high)}]" if interval else "-"


def _number(value: float) -> str:
    return f"{value:.3f}"


def _percent(share: float) -> str:
    return f"{100 * share:+.1f}%"


def _rung_json(rung: SystemResult) -> dict[str, Any]:
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
