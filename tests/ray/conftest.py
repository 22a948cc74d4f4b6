"""One local cluster for all tests of this folder, because a start takes seconds."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator

import pytest
import ray

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
