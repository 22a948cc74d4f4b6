"""One local cluster and one complete training for all tests of this folder, because each takes long."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from raysys import artifacts, pipeline
from raysys.artifacts import ShardSetManifest
from raysys.artifacts.build import run_steps
from tests.ray.training_runs import Run, run_of, small_config
from tests.s3 import free_port


@pytest.fixture(scope="session")
def s3_port() -> int:
    """The loopback port that every process uses as S3; a test that needs an S3 server listens there."""
    port = free_port()
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    return port


@pytest.fixture(scope="session")
def ray_cluster(s3_port: int) -> Iterator[None]:
    """A cluster of 8 logical CPUs on this machine."""
    ray.init(
        num_cpus=8,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=300 * 2**20,
        _node_ip_address="127.0.0.1",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def start(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A root with shards and a start encoder, and its number of training items."""
    root = tmp_path_factory.mktemp("start")
    config = small_config(root, num_items=100)
    pipeline.run_stage("pack", config)
    run_steps("train", pipeline.stage_steps("train", config)[:1])  # only the start encoder
    return root, artifacts.open_artifact(f"{root}/shards/train", ShardSetManifest).num_items


@pytest.fixture(scope="session")
def uninterrupted(start: tuple[Path, int]) -> Run:
    """Two workers train from the first step to the last without interruption."""
    config = small_config(*start)
    pipeline.run_stage("train", config)
    return run_of(config)
