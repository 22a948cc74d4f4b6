"""`raysys evaluate`: every rung of the ladder on the log and on the shelf protocol, as a Report."""

from __future__ import annotations

import io
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy import ndarray
from PIL import Image

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, IndexBundleManifest, ReportManifest
from raysys.config.schema import EvaluateConfig, RecordedLog, SimulatedLog, TrackingConfig
from raysys.encoder.preprocess import decode_image
from raysys.evaluate import metrics
from raysys.evaluate.attribute_precision import ALL, attribute_precision, chance_precision
from raysys.evaluate.baselines import EvaluationInputs, SystemScores, score_systems
from raysys.evaluate.items import EvaluationItems, read_items
from raysys.evaluate.logs import InteractionLog, read_log
from raysys.evaluate.plots import FINE_TUNED, WISE_FT, ZERO_SHOT
from raysys.evaluate.report import (
    Neighbours,
    ReportData,
    SystemResult,
    report_html,
    report_json,
    report_lines,
)
from raysys.evaluate.significance import Interval, bootstrap_lift, bootstrap_mean
from raysys.evaluate.simulation import simulated_log
from raysys.index.exact import exact_search
from raysys.shards.reader import ShardRef, shards_of
from raysys.tracking import logs
from raysys.tracking.wandb import open_wandb_run

LOG, REPORT_JSON, REPORT_HTML = "log.parquet", "report.json", "report.html"
_GRID_NEIGHBOURS = 5
_GRID_PHOTO_PX = 96


def evaluate(
    spec: ArtifactSpec, inputs: EvaluationInputs, section: EvaluateConfig
) -> tuple[ReportManifest, ReportData]:
    """Judge every rung and publish the Report."""
    started = time.monotonic()
    artifacts.begin(spec)
    items, log = _items_and_log(spec, inputs, section)
    scored = list(score_systems(inputs, items, log, section.seed))
    data = ReportData(
        name=inputs.name,
        simulated=log.simulated,
        rungs=evaluate_systems(scored, log, section),
        shelf=_judge_shelf(scored, items, section),
        loss_curve=list(inputs.loss_curve),
        grid=_grid(scored, items, section),
        interpolation=inputs.interpolation,
        facts=_facts(spec, inputs, log, section),
    )
    storage.write_bytes(storage.join(spec.uri, REPORT_JSON), json.dumps(report_json(data), indent=2).encode())
    storage.write_bytes(storage.join(spec.uri, REPORT_HTML), report_html(data).encode())
    files = artifacts.describe_files(spec.uri)
    seconds = time.monotonic() - started
    manifest = ReportManifest(
        **artifacts.common_fields(spec, files, len(log.query_ids), seconds),
        seed=section.seed,
        command=_command(),
    )
    for line in report_lines(data):
        logs.log.info(line)
    return artifacts.publish(spec.uri, manifest), data


def track(data: ReportData, run_uri: str, section: TrackingConfig, config: Mapping[str, Any]) -> None:
    """Add the report's table and pictures to the training run in W&B."""
    with open_wandb_run(data.name, run_uri, config, **section.model_dump()) as tracker:
        columns = ["rung", "available", "ndcg@5", "low", "high", "hit@1", "hit@3"]
        tracker.log_table("report/rungs", columns, [_table_row(rung) for rung in data.rungs])
        pictures = [_picture_row(neighbours) for neighbours in data.grid]
        if pictures:
            names = [
                f"{side} {place}" for side in ("before", "after") for place in range(1, _GRID_NEIGHBOURS + 1)
            ]
            tracker.log_table("report/neighbours", ["query", *names], pictures)
        tracker.summarise(
            {
                f"report/{rung.name}/ndcg@5": rung.metrics["ndcg@5"].value
                for rung in data.rungs
                if rung.available
            }
        )


def evaluate_systems(
    scored: Sequence[SystemScores], log: InteractionLog, section: EvaluateConfig
) -> list[SystemResult]:
    """nDCG@5, hit@1 and hit@3 of every rung with their intervals, and the lift over zero-shot."""
    ndcg: dict[str, ndarray] = {}
    rungs: list[SystemResult] = []
    for rung in scored:
        if rung.scores is None:
            rungs.append(SystemResult(rung.name, False, rung.reason, {}, None))
            continue
        ranked = metrics.rank_by(rung.scores, log.tapped, log.shown, seed=section.seed)
        ndcg[rung.name] = metrics.ndcg_at(5, ranked)
        measured = {
            "ndcg@5": ndcg[rung.name],
            "hit@1": metrics.hit_at(1, ranked),
            "hit@3": metrics.hit_at(3, ranked),
        }
        lift = None
        if "zero_shot" in ndcg and rung.name != "zero_shot":
            lift = bootstrap_lift(
                ndcg[rung.name], ndcg["zero_shot"], samples=section.bootstrap_samples, seed=section.seed
            )
        rungs.append(
            SystemResult(
                rung.name,
                True,
                None,
                {name: _interval(values, section) for name, values in measured.items()},
                lift,
            )
        )
    return rungs


def _items_and_log(
    spec: ArtifactSpec, inputs: EvaluationInputs, section: EvaluateConfig
) -> tuple[EvaluationItems, InteractionLog]:
    if isinstance(section.log, RecordedLog):
        log = read_log(section.log.path)
        return read_items(_shards(inputs, inputs.shard_uris), log.item_ids), log
    splits = {
        *section.splits,
        *(
            (section.attribute_precision.query_split, *section.attribute_precision.gallery_splits)
            if section.attribute_precision
            else ()
        ),
    }
    items = read_items(_shards(inputs, sorted(splits)))
    table = simulated_log(items.of_splits(section.splits), inputs.latent_uri, section.log)
    with storage.writable_file(storage.join(spec.uri, LOG)) as path:
        pq.write_table(table, path)
    return items, read_log(table)


def _shards(inputs: EvaluationInputs, splits: Iterable[str]) -> list[ShardRef]:
    return [shard for split in splits for shard in shards_of(inputs.shard_uris[split])]


def _judge_shelf(
    scored: Sequence[SystemScores], items: EvaluationItems, section: EvaluateConfig
) -> dict[str, dict[str, Interval] | float] | None:
    if section.attribute_precision is None:
        return None
    name = f"p@{section.attribute_precision.k}"
    judged: dict[str, dict[str, Interval] | float] = {
        "chance": chance_precision(items.attributes, items.splits, section.attribute_precision, items.groups)
    }
    for rung in scored:
        if rung.vectors is not None:
            precision = attribute_precision(
                rung.vectors, items.attributes, items.splits, section.attribute_precision, items.groups
            )
            judged[rung.name] = {
                name if match == ALL else f"{name} {match}": _interval(values, section)
                for match, values in precision.items()
            }
    return judged


def _interval(values: ndarray, section: EvaluateConfig) -> Interval:
    return bootstrap_mean(values, samples=section.bootstrap_samples, seed=section.seed)


def _grid(
    scored: Sequence[SystemScores], items: EvaluationItems, section: EvaluateConfig
) -> list[Neighbours]:
    """Some queries with what zero-shot and the delivered encoder find among the other sellers' items."""
    by_name = {rung.name: rung.vectors for rung in scored if rung.vectors is not None}
    before, after = by_name.get(ZERO_SHOT), by_name.get(WISE_FT, by_name.get(FINE_TUNED))
    if before is None or after is None:
        return []
    rng = np.random.default_rng(section.seed)
    queries = rng.permutation(len(items.item_ids))[: section.neighbour_grid_queries]
    return [
        Neighbours(
            items.titles[row],
            _thumb(items.photos[row]),
            _nearest(before, row, items),
            _nearest(after, row, items),
        )
        for row in queries
    ]


def _nearest(vectors: ndarray, query: int, items: EvaluationItems) -> list[tuple[bytes, str, float]]:
    scores, rows = exact_search(vectors[query][None], vectors, _GRID_NEIGHBOURS + 1)
    pairs = [(float(score), int(row)) for score, row in zip(scores[0], rows[0], strict=True) if row != query]
    return [(_thumb(items.photos[row]), items.titles[row], score) for score, row in pairs[:_GRID_NEIGHBOURS]]


def _thumb(photo: bytes) -> bytes:
    picture = decode_image(photo)
    picture.thumbnail((_GRID_PHOTO_PX, _GRID_PHOTO_PX), Image.Resampling.LANCZOS)
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=80)
    return encoded.getvalue()


def _table_row(rung: SystemResult) -> list[Any]:
    if not rung.available:
        return [rung.name, False, None, None, None, None, None]
    ndcg = rung.metrics["ndcg@5"]
    return [
        rung.name,
        True,
        ndcg.value,
        ndcg.low,
        ndcg.high,
        rung.metrics["hit@1"].value,
        rung.metrics["hit@3"].value,
    ]


def _picture_row(neighbours: Neighbours) -> list[Any]:
    photos = [neighbours.query_image, *(photo for photo, _, _ in (*neighbours.before, *neighbours.after))]
    return [decode_image(photo) for photo in photos]


def _facts(
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
        "command": _command(),
        "code version": artifacts.code_version(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }


def _command() -> str:
    return shlex.join(["raysys", *sys.argv[1:]])
