"""`train.method: wise_ft`: points between start and fine-tuned weights, measured; the best delivered."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.config.schema import RobustConfig
from raysys.encoder import bundle, siglip
from raysys.encoder.interpolation import Point, blend, choose, shares
from raysys.encoder.text import TextPreprocessing
from raysys.parallel import Parallel
from raysys.tracking import logs
from raysys.train.validation.model_metrics import Validation
from raysys.train.validation.retention import RetentionCheck


@dataclass(frozen=True)
class Sweep:
    """The line between two bundles, and how a point of it is measured; it can be sent to a task."""

    start_uri: str
    tuned_uri: str
    validation: Validation
    retention: RetentionCheck

    def measure(self, a: float) -> Point:
        """What the model at `a` can do."""
        model = self.model(a)
        return Point(a=a, figures=self.validation.measure(model), guard=self.retention.measure(model))

    def model(self, a: float) -> Any:
        """The model at `a`."""
        with storage.readable_folder(self.start_uri) as folder:
            start = siglip.load_model(folder).state_dict()
        with storage.readable_folder(self.tuned_uri) as folder:
            model = siglip.load_model(folder)
        model.load_state_dict(blend(start, model.state_dict(), a))
        return model


def publish_best_point(
    spec: ArtifactSpec, sweep: Sweep, section: RobustConfig, parallel: Parallel
) -> EncoderBundleManifest:
    """Measure the points of a sweep, and publish the chosen one with the whole curve beside it."""
    started = time.monotonic()
    points = list(parallel(sweep.measure, shares(section.interpolation_steps)))
    found = choose(points, score=sweep.validation.score, max_guard_drop=section.max_retention_drop)
    tuned = artifacts.open_artifact(sweep.tuned_uri, EncoderBundleManifest)

    def fill(folder: Path) -> None:
        with storage.readable_folder(sweep.tuned_uri) as base:
            bundle.copy_checkpoint(base, folder)
        if found.chosen < 1.0:
            sweep.model(found.chosen).save_pretrained(folder)

    manifest = bundle.publish_bundle(
        spec,
        fill,
        text=TextPreprocessing(**tuned.text),
        parent_space_id=tuned.space_id,
        training_run=tuned.training_run,
        num_items=tuned.num_items,
        seconds=time.monotonic() - started,
        interpolation=found,
    )
    logs.log.info("    train  %s", found.line())
    return manifest
