"""A driver as a process of its own: `raysys pack` or `raysys train` of a configuration in a file.

A training worker takes one `slot`, which stands for the GPU of its node, so that no node gets two of them.
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
RESIZE_EVERY_S = 20.0  # instead of 60: how soon a run grows back
_scaling = trainer._scaling


def one_a_node(section: TrainConfig, worker: dict[str, float]) -> ray.train.ScalingConfig:
    """What the launcher asks Ray for, and a slot for every worker."""
    return dataclasses.replace(  # type: ignore[call-arg]  # Ray types it as Train V1's
        _scaling(section, worker),
        resources_per_worker={**worker, SLOT: 1},
        elastic_resize_monitor_interval_s=RESIZE_EVERY_S,
    )


def main(stage: str, config_file: str) -> None:
    """Run the stage."""
    config = Config.model_validate_json(Path(config_file).read_text())
    with patch.object(trainer, "_scaling", one_a_node):
        pipeline.run_stage(stage, config)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
