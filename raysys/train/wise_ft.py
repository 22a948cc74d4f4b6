"""`train.method: wise_ft`: measure points between start and fine-tuned weights, and publish the best one."""

from __future__ import annotations

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
from raysys.parallel import Parallel
from raysys.tracking import logs
from raysys.train.validation.model_metrics import Validation
from raysys.train.validation.retention import RetentionCheck


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

    def fill(folder: Path) -> None:
        with storage.readable_folder(sweep.fine_tuned_uri) as source:
            bundle.copy_checkpoint(source, folder)
        if interpolation.alpha < 1.0:
            sweep.model(interpolation.alpha).save_pretrained(folder)

    manifest = bundle.publish_bundle(
        spec,
        fill,
        text=TextPreprocessing(**fine_tuned.text),
        parent_space_id=fine_tuned.space_id,
        training_run=fine_tuned.training_run,
        num_items=fine_tuned.num_items,
        seconds=time.monotonic() - started,
        interpolation=interpolation,
    )
    logs.log.info("    train  %s", interpolation.summary())
    return manifest
