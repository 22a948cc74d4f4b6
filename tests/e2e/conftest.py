"""The small path, made once by a real `raysys run`, and its shelf, served once by a real `raysys serve`."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.e2e.small import Finished, free_port, kill_group, run_raysys, start_raysys, write_config

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class MadePath:
    """What one `raysys run` was asked for, said and left."""

    config: Path
    root: Path
    run: Finished


@dataclass(frozen=True)
class Served:
    """A running shelf over a made path."""

    url: str
    root: Path


@pytest.fixture(scope="session")
def made_path(tmp_path_factory: pytest.TempPathFactory) -> MadePath:
    """Every stage of the small path, done by one process that ended well."""
    folder = tmp_path_factory.mktemp("path")
    config = write_config(folder)
    finished = run_raysys("run", str(config), folder=folder, timeout_s=280)
    assert finished.status == 0, finished.stderr
    return MadePath(config, folder / "root", finished)


@pytest.fixture(scope="session")
def served(made_path: MadePath, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The shelf over HTTP; SIGTERM ends it with status 0, and stdout then holds its address alone."""
    log_stem = tmp_path_factory.mktemp("serve") / "serve"
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    process = start_raysys("serve", str(made_path.config), f"serve.port={port}", log_stem=log_stem)
    try:
        wait_until_ready(url, process, log_stem)
        yield Served(url, made_path.root)
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
    finally:
        kill_group(process)
    assert process.returncode == 0, log_stem.with_suffix(".err").read_text()
    assert log_stem.with_suffix(".out").read_text() == f"{url}\n"


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log_stem: Path) -> None:
    """Return when the address was printed: every deployment is up then."""
    out = log_stem.with_suffix(".out")
    give_up = time.monotonic() + START_TIMEOUT_S
    while url not in out.read_text():
        assert process.poll() is None, log_stem.with_suffix(".err").read_text()
        assert time.monotonic() < give_up, "the service did not come up"
        time.sleep(0.2)
    assert httpx.get(f"{url}readyz", timeout=30).status_code == httpx.codes.OK
