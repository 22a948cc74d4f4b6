"""`train.method: wise_ft`: measure points between start and fine-tuned weights, and publish the best one.

A point is eligible if it passes the retention check: how well the model still matches pairs from outside its
training domain.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.config.schema import RobustConfig
from raysys.encoder import bundle, siglip
from raysys.encoder.interpolation import Point, alphas, choose_alpha, interpolate
from raysys.encoder.text import TextPreprocessing
from raysys.evaluate.items import read_items
from raysys.evaluate.retrieval import embed_pairs, recalls
from raysys.parallel import Parallel
from raysys.shards.reader import shards_of
from raysys.synth import generate_items, render_item
from raysys.tracking import logs
from raysys.train.validation.model_metrics import Validation

DRAWN = "drawn"
_SEED = 20_210  # different from any catalogue's, so that no item of the check was trained on


@dataclass(frozen=True)
class Sweep:
    """The line between two bundles, and how its points are measured. Can be sent to a task."""

    start_uri: str
    fine_tuned_uri: str
    validation: Validation
    retention: RetentionCheck

    def measure(self, alpha: float) -> Point:
        """Validation metrics and retention of the model at `alpha`."""
        model = self.model(alpha)
        return Point(
            alpha=alpha, metrics=self.validation.measure(model), retention=self.retention.measure(model)
        )

    def model(self, alpha: float) -> Any:
        """The model at `alpha`."""
        with storage.readable_folder(self.start_uri) as folder:
            start = siglip.load_model(folder).state_dict()
        with storage.readable_folder(self.fine_tuned_uri) as folder:
            model = siglip.load_model(folder)
        model.load_state_dict(interpolate(start, model.state_dict(), alpha))
        return model


def publish_best_point(
    spec: ArtifactSpec, sweep: Sweep, section: RobustConfig, parallel: Parallel
) -> EncoderBundleManifest:
    """Measure the points of a sweep and publish the chosen one; its manifest holds all points."""
    started = time.monotonic()
    points = list(parallel(sweep.measure, alphas(section.interpolation_steps)))
    interpolation = choose_alpha(
        points, score=sweep.validation.score, max_retention_drop=section.max_retention_drop
    )
    fine_tuned = artifacts.open_artifact(sweep.fine_tuned_uri, EncoderBundleManifest)

    def write_files(folder: Path) -> None:
        with storage.readable_folder(sweep.fine_tuned_uri) as source:
            bundle.copy_checkpoint(source, folder)
        if interpolation.alpha < 1.0:
            sweep.model(interpolation.alpha).save_pretrained(folder)

    manifest = bundle.publish_bundle(
        spec,
        write_files,
        text=TextPreprocessing(**fine_tuned.text),
        parent_space_id=fine_tuned.space_id,
        training_run=fine_tuned.training_run,
        num_items=fine_tuned.num_items,
        seconds=time.monotonic() - started,
        interpolation=interpolation,
    )
    logs.log.info("    train  %s", interpolation.summary())
    return manifest


@dataclass(frozen=True)
class RetentionCheck:
    """R@5 from photo to title on pairs that no training has used."""

    encoder_uri: str
    """The bundle with the preprocessing of photos and titles."""
    source: str
    """`drawn`, or the URI of a ShardSet."""
    num_items: int

    def measure(self, model: Any) -> float:
        """R@5 of a model on its device, from 0 to 1."""
        photos, titles = retention_pairs(self.source, self.num_items)
        return recalls(embed_pairs(model, self.encoder_uri, photos, titles))["r@5"]


def make_retention_check(encoder_uri: str, section: RobustConfig) -> RetentionCheck:
    """The check that `train.robust` configures.

    Raises: MissingError if its ShardSet does not exist.
    """
    if section.retention_set != DRAWN:
        shards_of(section.retention_set)
    return RetentionCheck(encoder_uri, section.retention_set, section.retention_items)


@functools.lru_cache(maxsize=1)  # one process measures several models
def retention_pairs(source: str, num_items: int) -> tuple[list[bytes], list[str]]:
    """Photos and titles; the same pairs on every call."""
    if source == DRAWN:
        drawn = generate_items(num_items, _SEED)
        return [render_item(item) for item in drawn], [item.title for item in drawn]
    items = read_items(shards_of(source), max_items=num_items)
    return items.photos, items.titles
