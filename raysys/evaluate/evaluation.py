"""The evaluation of a training run: every system on the log and by attribute precision, as a Report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, IndexBundleManifest, ReportManifest
from raysys.config.schema import CHANCE, EvaluateConfig, RecordedLog, SimulatedLog, TrackingConfig
from raysys.encoder.preprocess import decode_image
from raysys.evaluate.attribute_precision import ALL, attribute_precision, chance_precision
from raysys.evaluate.baselines import Baselines, read_baselines
from raysys.evaluate.index_comparison import compare_index
from raysys.evaluate.interaction_log import InteractionLog, read_log
from raysys.evaluate.items import EvaluationItems, known_attributes, read_items, splits_to_read
from raysys.evaluate.metrics import PerQuery
from raysys.evaluate.provenance import command_line, provenance
from raysys.evaluate.report import QueryNeighbours, ReportData, report_html, report_json, report_lines
from raysys.evaluate.reranking import (
    FINE_TUNED,
    HIT_AT_1,
    HIT_AT_3,
    NDCG_AT_5,
    WISE_FT,
    ZERO_SHOT,
    SystemResult,
    SystemScores,
    evaluate_systems,
    mean_intervals,
    paired_lifts,
)
from raysys.evaluate.shown_photos import NUM_NEIGHBOURS, catalogue_photos, query_neighbours, relevance_rule
from raysys.evaluate.significance import MIN_QUERIES, Interval
from raysys.evaluate.simulation import simulate_log_for_items
from raysys.evaluate.systems import EvaluationInputs, score_systems
from raysys.shards.reader import ShardRef, shards_of
from raysys.tracking import logs
from raysys.tracking.wandb_run import open_wandb_run, wandb_mode

LOG, REPORT_JSON, REPORT_HTML = "log.parquet", "report.json", "report.html"


def evaluate(
    spec: ArtifactSpec, inputs: EvaluationInputs, section: EvaluateConfig
) -> tuple[ReportManifest, ReportData]:
    """Evaluate every system and publish the Report; an earlier one stays until then."""
    started = time.monotonic()
    baselines, log, log_table, warnings = _load_items_and_log(inputs, section)
    items = baselines.items
    systems = list(score_systems(inputs, items, log, section.seed, baselines.vectors))
    precision, precision_lifts = _evaluate_attribute_precision(systems, items, inputs.latent_uri, section)
    data = ReportData(
        name=inputs.name,
        simulated=log.simulated,
        compare_to=section.compare_to,
        systems=evaluate_systems(
            systems,
            log,
            bootstrap_samples=section.bootstrap_samples,
            seed=section.seed,
            compare_to=section.compare_to,
        ),
        attribute_precision=precision,
        attribute_precision_lifts=precision_lifts,
        index=compare_index(inputs.index_uri, log, section, inputs.device),
        loss_curve=list(inputs.loss_curve),
        neighbours=_find_neighbours(systems, items, log, inputs.latent_uri, section),
        relevance_rule=relevance_rule(section),
        catalogue_photos=catalogue_photos(items, section),
        num_items=len(items.item_ids),
        is_drawn=inputs.latent_uri is not None,
        interpolation=inputs.interpolation,
        provenance=_describe_provenance(spec, inputs, log, section),
        warnings=[*warnings, *interval_warnings(log)],
    )
    artifacts.begin(spec)
    if log_table is not None:
        with storage.writable_file(storage.join(spec.uri, LOG)) as path:
            pq.write_table(log_table, path)
    storage.write_bytes(storage.join(spec.uri, REPORT_JSON), json.dumps(report_json(data), indent=2).encode())
    storage.write_bytes(storage.join(spec.uri, REPORT_HTML), report_html(data).encode())
    files = artifacts.describe_files(spec.uri)
    seconds = time.monotonic() - started
    manifest = ReportManifest(
        **artifacts.common_fields(spec, files, len(log.query_ids), seconds),
        seed=section.seed,
        command=command_line(),
    )
    for line in report_lines(data):
        logs.log.info(line)
    return artifacts.publish(spec.uri, manifest), data


def log_report_to_wandb(
    data: ReportData, run_uri: str, section: TrackingConfig, config: Mapping[str, Any]
) -> None:
    """Add the report's metrics and neighbour photos to the training run in W&B, unless it is disabled.

    The report is published by now, so a failure of W&B is a warning; without an answer it is logged offline.
    """
    if wandb_mode(section.mode) == "disabled":
        return
    try:
        _log_to_wandb(data, run_uri, section, config)
    except Exception as error:  # W&B, its files and its network: no error of theirs is a reason to fail
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        logs.log.warning(" evaluate  the report is published, but not in W&B (%s)", reason)


def _log_to_wandb(data: ReportData, run_uri: str, section: TrackingConfig, config: Mapping[str, Any]) -> None:
    with open_wandb_run(data.name, run_uri, config, section) as tracker:
        columns = ["rung", "available", NDCG_AT_5, "low", "high", HIT_AT_1, HIT_AT_3]
        tracker.log_table("report/rungs", columns, [_wandb_metrics_row(system) for system in data.systems])
        photo_rows = [_wandb_photo_row(query) for query in data.neighbours]
        if photo_rows:
            names = [
                f"{side} {rank}" for side in ("before", "after") for rank in range(1, NUM_NEIGHBOURS + 1)
            ]
            tracker.log_table("report/neighbours", ["query", "chosen", *names], photo_rows)
        tracker.summarise(
            {
                f"report/{system.name}/{NDCG_AT_5}": system.metrics[NDCG_AT_5].value
                for system in data.systems
                if system.available
            }
        )


def interval_warnings(log: InteractionLog) -> list[str]:
    """A sentence if the log has too few query items for its intervals; impressions of one item are alike."""
    num_queries, num_impressions = len(set(log.query_ids)), len(log.query_ids)
    if num_queries >= MIN_QUERIES:
        return []
    return [
        f"{num_impressions} impressions of {num_queries} query items: below {MIN_QUERIES} query items the "
        "95 % intervals are not reliable; use a longer log, or more items (evaluate.splits)."
    ]


def _load_items_and_log(
    inputs: EvaluationInputs, section: EvaluateConfig
) -> tuple[Baselines, InteractionLog, pa.Table | None, list[str]]:
    """The recorded log and its items, or the items of the configured splits and a log simulated on them.

    Both have only the items that every baseline has; a warning counts what is left out. A simulated log is
    also returned as a table.
    """
    if isinstance(section.log, RecordedLog):
        log = read_log(section.log.path)
        baselines = read_baselines(section, read_items(_shards(inputs, inputs.shard_uris), log.item_ids))
        log, warnings = baselines.restrict(log)
        return baselines, log, None, [*baselines.warnings, *warnings]
    baselines = read_baselines(section, read_items(_shards(inputs, splits_to_read(section))))
    table = simulate_log_for_items(
        baselines.items.select_splits(section.splits), inputs.latent_uri, section.log
    )
    return baselines, read_log(table), table, baselines.warnings


def _shards(inputs: EvaluationInputs, splits: Iterable[str]) -> list[ShardRef]:
    return [shard for split in splits for shard in shards_of(inputs.shard_uris[split])]


def _evaluate_attribute_precision(
    systems: Sequence[SystemScores], items: EvaluationItems, latent_uri: str | None, section: EvaluateConfig
) -> tuple[dict[str, dict[str, Interval] | float] | None, dict[str, dict[str, Interval]]]:
    """The precision of every system that has vectors, and the chance level; None if not configured. Then the
    lifts against `compare_to`, by system and metric."""
    protocol = section.attribute_precision
    if protocol is None:
        return None, {}
    attributes = known_attributes(items, latent_uri)
    samples, seed = section.bootstrap_samples, section.seed
    per_metric: dict[str, dict[str, PerQuery]] = {}
    name = f"p@{protocol.k}"
    results: dict[str, dict[str, Interval] | float] = {
        CHANCE: chance_precision(attributes, items.splits, protocol, items.groups)
    }
    for system in systems:
        if system.vectors is not None:
            precision = attribute_precision(system.vectors, attributes, items.splits, protocol, items.groups)
            per_query = {
                name if attribute == ALL else f"{name} {attribute}": values
                for attribute, values in precision.items()
            }
            results[system.name] = mean_intervals(per_query, samples=samples, seed=seed)
            for metric, values in per_query.items():
                per_metric.setdefault(metric, {})[system.name] = values
    lifts: dict[str, dict[str, Interval]] = {}
    for metric, by_system in per_metric.items():
        paired = paired_lifts(by_system, section.compare_to, samples=samples, seed=seed)
        for system_name, lift in paired.items():
            lifts.setdefault(system_name, {})[metric] = lift
    return results, lifts


def _find_neighbours(
    systems: Sequence[SystemScores],
    items: EvaluationItems,
    log: InteractionLog,
    latent_uri: str | None,
    section: EvaluateConfig,
) -> list[QueryNeighbours]:
    """Query items with their nearest items by the start encoder and by the delivered encoder."""
    vectors = {system.name: system.vectors for system in systems if system.vectors is not None}
    start, delivered = vectors.get(ZERO_SHOT), vectors.get(WISE_FT, vectors.get(FINE_TUNED))
    if start is None or delivered is None:
        return []
    return query_neighbours(start, delivered, items, log, latent_uri, section)


def _wandb_metrics_row(system: SystemResult) -> list[Any]:
    if not system.available:
        return [system.name, False, None, None, None, None, None]
    ndcg = system.metrics[NDCG_AT_5]
    return [
        system.name,
        True,
        ndcg.value,
        ndcg.low,
        ndcg.high,
        system.metrics[HIT_AT_1].value,
        system.metrics[HIT_AT_3].value,
    ]


def _wandb_photo_row(query: QueryNeighbours) -> list[Any]:
    cells: list[Any] = [decode_image(query.photo), query.chosen]
    for neighbours in (query.start, query.delivered):
        photos = [decode_image(neighbour.photo) for neighbour in neighbours]
        cells += photos + [None] * (NUM_NEIGHBOURS - len(photos))  # there are few items
    return cells


def _describe_provenance(
    spec: ArtifactSpec, inputs: EvaluationInputs, log: InteractionLog, section: EvaluateConfig
) -> dict[str, str]:
    index = artifacts.open_artifact(inputs.index_uri, IndexBundleManifest)
    return {
        "queries": f"{len(log.query_ids)} impressions with a tap ({log.num_untapped} without)",
        "log": f"simulated, seed {section.log.seed}"
        if isinstance(section.log, SimulatedLog)
        else section.log.path,
        "index": f"{index.index_kind}, "
        + ", ".join(f"{name} {value:.4g}" for name, value in index.recall.items()),
        "items": f"{index.num_items:,} in the index, {index.dimensions} dimensions",
        "inputs": ", ".join(f"{name} {entry.fingerprint[:12]}" for name, entry in spec.inputs.items()),
        "seed": str(section.seed),
        **provenance(),
    }
