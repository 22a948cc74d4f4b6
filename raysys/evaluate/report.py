"""The report in three forms: JSON for programs, an HTML page for people, lines for a terminal.

The page is one file: styles, plots (SVG) and photos are inline; it has no script and needs no network.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raysys.encoder.interpolation import SCORE, Interpolation
from raysys.evaluate import plots
from raysys.evaluate.formatting import (
    aligned,
    finite_or_none,
    format_interval,
    format_percent,
    format_value,
    interval_json,
)
from raysys.evaluate.index_comparison import IndexComparison
from raysys.evaluate.plots import is_fine_tuned, metric_label
from raysys.evaluate.reranking import FINE_TUNED, NDCG_AT_5, WISE_FT, ZERO_SHOT, SystemResult
from raysys.evaluate.significance import Interval

SYSTEM_DESCRIPTIONS = {
    "random": "the shown items in random order",
    "popularity": "items by their tap rate in the other impressions",
    "thumbnail": "photos compared as 12 x 12 thumbnails, pixel by pixel",
    "mobilenet_v2": "MobileNetV2 (ImageNet), not fine-tuned",
    "zero_shot": "the start encoder, before fine-tuning",
    "fine_tuned": "the encoder after fine-tuning",
    "wise_ft": "weights interpolated between the start and the fine-tuned encoder",
    "fine_tuned_pca": "the delivered vectors, shortened by PCA",
}
SYSTEM_REASONS = {
    "random": "The floor: what a shelf scores that knows nothing about the items.",
    "popularity": "How far the taps go without a look at the photos.",
    "thumbnail": "How far plain colours and layout go: an encoder has to beat it to be worth its cost.",
    "mobilenet_v2": "The baseline of the published result: a standard vision model, as it is.",
    "zero_shot": "Where fine-tuning starts: the next rows show what it added.",
    "fine_tuned": "What training on photos and titles of the catalogue adds.",
    "wise_ft": "What is delivered: the mixture of start and fine-tuned weights that validation chose.",
    "fine_tuned_pca": "What the service searches: shorter vectors, and what they cost.",
}
_BASELINE_REASON = "Vectors of yours: the fine-tuned encoder has to beat what you have."
# A catalogue of one's own, from a checkout of raysys; README.md has the same commands.
NEXT_COMMANDS = (
    "cp configs/catalog.yaml configs/my.yaml",
    "raysys run configs/my.yaml catalog.path=/data/items.csv",
    "raysys serve configs/my.yaml",
)
NEXT_NOTE = (
    "Replace the column names in the copy by those of your table: an id, a title, a photo and attributes."
)
# Mercari, arXiv 2510.13359: encoder, nDCG@5, hit@1, measured on their log.
PUBLISHED = (
    ("MobileNetV2 (ImageNet, not fine-tuned)", "0.607", "0.356"),
    ("fine-tuned SigLIP", "0.662 (+9.1%)", "0.412"),
    ("fine-tuned SigLIP, PCA 128", "0.647 (-2.3%)", "0.406"),
)


class CataloguePhoto(NamedTuple):
    """The photo and title of an item."""

    photo: bytes
    title: str


class NeighbourPhoto(NamedTuple):
    """The photo and title of a nearest item, and its cosine similarity to the query."""

    photo: bytes
    title: str
    score: float
    is_relevant: bool = False
    """By the log; see `ReportData.relevance_rule`."""


@dataclass(frozen=True)
class QueryNeighbours:
    """A query item and its nearest items by two encoders.

    The page embeds the photos unchanged: pass thumbnails of a few kilobytes.
    """

    title: str
    photo: bytes
    start: list[NeighbourPhoto]
    """By the start encoder."""
    delivered: list[NeighbourPhoto]
    """By the delivered encoder."""
    has_largest_gain: bool = False
    """Chosen for its gain; the other queries are random."""

    @property
    def chosen(self) -> str:
        """How the query was chosen, in words."""
        return "largest gain" if self.has_largest_gain else "chosen at random"


@dataclass(frozen=True)
class ReportData:
    """The content of a report."""

    name: str
    simulated: bool
    systems: list[SystemResult]
    attribute_precision: Mapping[str, Mapping[str, Interval] | float] | None
    """System -> `p@5`, `p@5 colour`, .. -> precision; and `chance` -> the `p@5` of a random order."""
    loss_curve: list[dict[str, Any]]
    """Rows with step, and loss, learning_rate, scale, bias, pairs_per_s, `val_r@1`, `val_ndcg@5`."""
    neighbours: list[QueryNeighbours]
    interpolation: Interpolation | None
    """How the delivered weights were chosen between the start and the fine-tuned ones."""
    provenance: dict[str, str]
    """Inputs, seed, command, code version, hardware, date, .. of the measurement."""
    warnings: Sequence[str] = ()
    """What a reader of the intervals must know, one sentence each."""
    compare_to: str = ZERO_SHOT
    """The system against which the lifts are."""
    attribute_precision_lifts: Mapping[str, Mapping[str, Interval]] = field(default_factory=dict)
    """System -> metric -> relative change against `compare_to`, paired."""
    index: IndexComparison | None = None
    """None if the index has no query item of the log."""
    relevance_rule: str = ""
    """When a nearest item counts as relevant, as the end of a sentence."""
    catalogue_photos: Sequence[CataloguePhoto] = ()
    num_items: int = 0
    """Items of the evaluation, of which `catalogue_photos` are some."""
    is_drawn: bool = False
    """The catalogue is the drawn one: the page then says how to use another."""


def report_json(data: ReportData) -> dict[str, Any]:
    """The report as JSON-safe values: NaN and infinity become null.

    The keys `rungs`, `shelf` and `facts` belong to the file format; in the code they are systems, attribute
    precision and provenance.
    """
    report: dict[str, Any] = {
        "name": data.name,
        "simulated": data.simulated,
        "compare_to": data.compare_to,
        "rungs": [_system_json(system, data.compare_to) for system in data.systems],
        "inputs": data.provenance.get("inputs", ""),
        "seed": data.provenance.get("seed", ""),
        "command": data.provenance.get("command", ""),
        "facts": dict(data.provenance),
    }
    if data.warnings:
        report["warnings"] = list(data.warnings)
    if data.attribute_precision is not None:
        report["shelf"] = {
            name: finite_or_none(result)
            if isinstance(result, int | float)
            else {metric: interval_json(interval) for metric, interval in result.items()}
            for name, result in data.attribute_precision.items()
        }
        report["shelf_lifts"] = {
            name: {metric: interval_json(lift) for metric, lift in lifts.items()}
            for name, lifts in data.attribute_precision_lifts.items()
        }
    if data.index is not None:
        report["index"] = _index_json(data.index)
    if data.interpolation is not None:
        report["interpolation"] = data.interpolation.model_dump(mode="json")
    return report


def report_lines(data: ReportData) -> list[str]:
    """The systems as an aligned table for a terminal, and one for each other protocol."""
    metrics = _metric_names(data.systems)
    rows = [["system", *(metric_label(metric) for metric in metrics), f"nDCG@5 against {data.compare_to}"]]
    for system in data.systems:
        if system.available:
            cells = [format_interval(system.metrics.get(metric), format_value) for metric in metrics]
            rows.append([system.name, *cells, format_interval(system.lift, format_percent)])
        else:
            rows.append([system.name, f"not available: {system.reason}"])
    lines = [*aligned(rows), *_reason_lines(data.systems)]
    if data.attribute_precision is not None:
        lines += aligned(_precision_rows(data))
    if data.index is not None:
        lines.append(_index_line(data.index))
    if any(system.available for system in data.systems):
        lines.append(f"   result  {_headline(data)}")
    if data.simulated:
        lines.append("SIMULATED LOG: taps were generated from item attributes, not recorded from people.")
    return [*lines, *(f"WARNING: {warning}" for warning in data.warnings)]


def _reason_lines(systems: Sequence[SystemResult]) -> list[str]:
    """What each row of the table tells the reader; the others have the reason of their absence there."""
    reasons = [[system.name, system_reason(system.name)] for system in systems if system.available]
    return aligned([["system", "what its row tells you"], *reasons]) if reasons else []


def system_reason(name: str) -> str:
    """Why a system is in the table, in one sentence."""
    return SYSTEM_REASONS.get(name, _BASELINE_REASON)


def _precision_rows(data: ReportData) -> list[list[str]]:
    """Header and rows of the attribute precision: the chance level has no lift."""
    systems = precision_systems(data)
    metrics = list(dict.fromkeys(metric for result in systems.values() for metric in result))
    if not metrics:
        return []
    against = f"{metric_label(metrics[0])} against {data.compare_to}"
    rows = [["system", *(metric_label(metric) for metric in metrics), against]]
    for name, result in systems.items():
        lift = data.attribute_precision_lifts.get(name, {}).get(metrics[0])
        cells = [format_interval(result.get(metric), format_value) for metric in metrics]
        rows.append([name, *cells, format_interval(lift, format_percent)])
    return rows


def precision_systems(data: ReportData) -> dict[str, Mapping[str, Interval]]:
    """System -> metric -> attribute precision, without the chance level."""
    results = data.attribute_precision or {}
    return {name: result for name, result in results.items() if isinstance(result, Mapping)}


def _index_line(index: IndexComparison) -> str:
    """The index in one line for a terminal."""
    parts = [f"{name} {format_interval(recall, format_value)}" for name, recall in index.recall.items()]
    parts += [
        f"{metric_label(index.precision_name or '')} by {name} {format_interval(value, format_value)}"
        for name, value in index.precision.items()
    ]
    searched = f"{index_name(index)} against exact search, {index.num_queries} queries"
    return f"    index  {searched}: {', '.join(parts)}"


def index_name(index: IndexComparison) -> str:
    """Kind and settings of an index: `hnsw, ef_search 128`."""
    return ", ".join([index.kind, *(f"{name} {value}" for name, value in index.settings.items())])


def report_html(data: ReportData) -> str:
    """The page: photos, headline, the shelf before and after fine-tuning, tables, plots and provenance."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    ndcg = {system.name: system.metrics[NDCG_AT_5] for system in data.systems if NDCG_AT_5 in system.metrics}
    precision, interpolation = data.attribute_precision, data.interpolation
    return environment.get_template("report.html.j2").render(
        data=data,
        metric_label=metric_label,
        format_value=format_value,
        format_percent=format_percent,
        data_uri=_data_uri,
        metrics=_metric_names(data.systems),
        headline=_headline(data),
        descriptions=SYSTEM_DESCRIPTIONS,
        system_reason=system_reason,
        next_commands=NEXT_COMMANDS,
        next_note=NEXT_NOTE,
        is_fine_tuned=is_fine_tuned,
        published=PUBLISHED,
        index_name=index_name(data.index) if data.index else "",
        precision=precision_systems(data),
        ndcg_plot=plots.ndcg_plot(ndcg, data.compare_to),
        attribute_precision_plot=plots.attribute_precision_plot(precision) if precision else None,
        training_plot=plots.training_plot(data.loss_curve),
        training_summary=_training_summary(data.loss_curve),
        has_start_metrics=any(row["step"] == 0 and "val_r@1" in row for row in data.loss_curve),
        interpolation_plot=plots.interpolation_plot(interpolation) if interpolation else None,
        interpolation_summary=_interpolation_summary(interpolation) if interpolation else "",
    )


def _headline(data: ReportData) -> str:
    """The result in one sentence."""
    lifts = {system.name: system.lift for system in data.systems if system.available}
    lift = lifts.get(WISE_FT, lifts.get(FINE_TUNED))
    if data.compare_to != ZERO_SHOT:
        return _headline_against(data, lift)
    if lift is None:
        return "Fine-tuning could not be compared with the start encoder."
    bounds = f"{format_percent(lift.low)} to {format_percent(lift.high)}"
    change = f"nDCG@5 {format_percent(lift.value)} ({bounds})"
    subject = "On a simulated log, fine-tuning" if data.simulated else "Fine-tuning"
    if lift.low > 0:
        return f"{subject} improved the order of the shelf: {change}."
    if lift.high < 0:
        return f"{subject} worsened the order of the shelf: {change}."
    return f"{subject} made no measurable difference on this log: {change}."


def _headline_against(data: ReportData, lift: Interval | None) -> str:
    """The result in one sentence, against a system other than the start encoder."""
    if lift is None:
        return f"The fine-tuned encoder could not be compared with {data.compare_to}."
    bounds = f"{format_percent(lift.low)} to {format_percent(lift.high)}"
    change = f"nDCG@5 {format_percent(lift.value)} ({bounds})"
    subject = "On a simulated log, the" if data.simulated else "The"
    if lift.low > 0:
        return f"{subject} fine-tuned encoder orders the shelf better than {data.compare_to}: {change}."
    if lift.high < 0:
        return f"{subject} fine-tuned encoder orders the shelf worse than {data.compare_to}: {change}."
    return f"{subject} fine-tuned encoder does not differ measurably from {data.compare_to}: {change}."


def _training_summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """The last loss and validation metrics of the training log, in words."""
    latest = {
        key: value for row in rows for key, value in row.items() if value is not None and math.isfinite(value)
    }
    is_shown = {key: key == "loss" or (key.startswith("val_") and key != "val_score") for key in latest}
    names = [key for key in latest if is_shown[key] and not key.endswith("_gain")]
    values = [f"{metric_label(name.replace('val_', 'validation '))} {latest[name]:.4g}" for name in names]
    last_step = max((row["step"] for row in rows), default=0)
    return f"At the last step ({last_step:.0f}): {', '.join(values)}."


def _interpolation_summary(interpolation: Interpolation) -> str:
    """The chosen point between the start and the fine-tuned weights, in words."""
    start, fine_tuned = interpolation.points[0], interpolation.points[-1]
    chosen = interpolation.at(interpolation.alpha)
    sentences = [f"Chosen: alpha = {interpolation.alpha:g}."]
    if chosen.metrics:
        sentences.append(
            f"{metric_label(interpolation.score)}: {chosen.metrics[SCORE]:.3f} "
            f"(start {start.metrics[SCORE]:.3f}, fine-tuned {fine_tuned.metrics[SCORE]:.3f})."
        )
    sentences.append(
        f"Retention check: {chosen.retention:.3f} "
        f"(start {start.retention:.3f}, fine-tuned {fine_tuned.retention:.3f}, "
        f"minimum {interpolation.min_retention:.3f})."
    )
    return " ".join(sentences)


def _metric_names(systems: Sequence[SystemResult]) -> list[str]:
    return list(dict.fromkeys(metric for system in systems for metric in system.metrics)) or [NDCG_AT_5]


def _index_json(index: IndexComparison) -> dict[str, Any]:
    content: dict[str, Any] = {
        "kind": index.kind,
        "settings": dict(index.settings),
        "items": index.num_items,
        "queries": index.num_queries,
        "unknown_queries": index.num_unknown,
        "recall": {name: interval_json(recall) for name, recall in index.recall.items()},
    }
    if index.precision_name is not None:
        content[index.precision_name] = {
            name: interval_json(value) for name, value in index.precision.items()
        }
    if index.precision_lift is not None:
        content["lift_vs_exact"] = interval_json(index.precision_lift)
    return content


def _system_json(system: SystemResult, compare_to: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": system.name,
        "available": system.available,
        "reason": system.reason,
        "metrics": {metric: interval_json(interval) for metric, interval in system.metrics.items()},
    }
    return entry if system.lift is None else {**entry, f"lift_vs_{compare_to}": interval_json(system.lift)}


def _data_uri(photo: bytes) -> str:
    """A photo as a `data:` URI."""
    signatures = ((b"\x89PNG", "png"), (b"RIFF", "webp"), (b"GIF8", "gif"))
    subtype = next((subtype for prefix, subtype in signatures if photo.startswith(prefix)), "jpeg")
    return f"data:image/{subtype};base64,{base64.b64encode(photo).decode('ascii')}"
