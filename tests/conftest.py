"""What every test runs under: a hermetic environment, set before Ray or transformers are imported."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import jaxtyping
import pytest

from tests.postgres import PostgresServer, postgres_server
from tests.s3 import moto_server

os.environ.update(
    {
        "AWS_ACCESS_KEY_ID": "test",  # the only S3 that tests speak to is their own
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_SECRET_ACCESS_KEY": "test",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",  # small models, few cores: a second thread would only wait
        "RAY_AUTH_MODE": "disabled",
        "RAY_prestart_worker_first_driver": "0",  # idle workers cost each cluster seconds of CPU
        "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "60",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
        "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "60",
        "RAY_USAGE_STATS_ENABLED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "WANDB_MODE": "offline",
    }
)
# Together two minutes of the folder that takes longest.
WITHOUT_SHARED_CLUSTER = {
    f"tests/ray/{name}.py"
    for name in ("test_jobs", "test_loss_ranks", "test_s3_pack", "test_validation_ranks")
}
GPU_TESTS = Path(__file__).parent / "gpu"
for name in (
    "PGPASSWORD",
    "PGPASSFILE",
    "WANDB_API_KEY",
    "RAY_ADDRESS",
    "AWS_ENDPOINT_URL_S3",
    "AWS_PROFILE",
    "AWS_SESSION_TOKEN",
):
    os.environ.pop(name, None)

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # inherited from a shell that runs `make test &`
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Shapes that the signatures promise are checked in these modules while tests run.
jaxtyping.install_import_hook(
    [
        "raysys.encoder.projection",
        "raysys.evaluate.metrics",
        "raysys.evaluate.attribute_precision",
        "raysys.evaluate.reranking",
        "raysys.evaluate.significance",
        "raysys.index.exact",
        "raysys.stream.order",
        "raysys.train.loss.exchange",
        "raysys.train.loss.pairs",
        "raysys.train.loss.tiles",
    ],
    "beartype.beartype",
)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    """The port of an S3 server without a bucket."""
    with moto_server() as port:
        yield port


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with postgres_server() as server:
        yield server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests below `gpu/` are marked `gpu`, and skip on a machine without one."""
    import torch  # not above: it reads the environment

    for item in items:
        if GPU_TESTS in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            # PyTorch's compiler for GPUs warns of what it does itself.
            item.add_marker(pytest.mark.filterwarnings("default:::torch"))
            if not torch.cuda.is_available():
                item.add_marker(pytest.mark.skip(reason="needs a GPU: torch.cuda.is_available() is False"))


@pytest.hookimpl(optionalhook=True)  # without xdist, tests run in one process
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """How `make test` deals the tests to its processes: a folder to one of them, which shares its clusters.

    Unit tests, and the tests of `ray/` without the shared cluster, share nothing and are dealt by the file;
    the linters are dealt like a folder. Two processes fill each other's gaps on two cores; three took longer.
    """
    from xdist.scheduler import LoadScopeScheduling

    scheduler = LoadScopeScheduling(config, log)
    scheduler._split_scope = _scope
    return scheduler


def _scope(nodeid: str) -> str:
    file = nodeid.split("::")[0]
    folder = nodeid.split("/")[1]
    return file if folder == "unit" or file in WITHOUT_SHARED_CLUSTER else folder
