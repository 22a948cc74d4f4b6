"""A driver in a separate process: runs a stage with a configuration from a file.

A training worker takes one `slot`, which stands for the GPU of its node, so that every node gets one worker.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from unittest.mock import patch

import ray.train

from raysys import pipeline
from raysys.config import Config
from raysys.config.schema import TrainConfig
from raysys.train import trainer

SLOT = "slot"
RESIZE_INTERVAL_S = 20.0  # Ray's default is 60: how soon a run grows back
scaling_config = trainer.scaling_config


def one_worker_a_node(section: TrainConfig, worker: dict[str, float]) -> ray.train.ScalingConfig:
    """The scaling configuration of the trainer, with a slot for every worker."""
    return dataclasses.replace(  # type: ignore[call-arg]  # Ray types it as Train V1's
        scaling_config(section, worker),
        resources_per_worker={**worker, SLOT: 1},
        elastic_resize_monitor_interval_s=RESIZE_INTERVAL_S,
    )


def main(stage: str, config_file: str) -> None:
    """Run the stage."""
    config = Config.model_validate_json(Path(config_file).read_text())
    with patch.object(trainer, "scaling_config", one_worker_a_node):
        pipeline.run_stage(stage, config)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
