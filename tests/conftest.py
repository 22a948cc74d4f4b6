"""What every test runs under: a hermetic environment, set before Ray or transformers are imported."""

from __future__ import annotations

import os

import jaxtyping

os.environ.update(
    {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # small models, few cores: a second thread would only wait
        "RAY_AUTH_MODE": "disabled",
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "60",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "offline",
    }
)
os.environ.pop("WANDB_API_KEY", None)
os.environ.pop("RAY_ADDRESS", None)

# Shapes that the signatures promise are checked in these modules while tests run.
jaxtyping.install_import_hook(
    [
        "raysys.encoder.projection",
        "raysys.evaluate.metrics",
        "raysys.evaluate.shelf",
        "raysys.evaluate.significance",
        "raysys.index.exact",
        "raysys.stream.order",
        "raysys.train.loss",
    ],
    "beartype.beartype",
)
