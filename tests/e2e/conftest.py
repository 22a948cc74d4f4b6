"""One `raysys run` with the small configuration and one `raysys serve` of its artifacts, both as processes; and a page
of a stub of the service in a browser.
"""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import httpx
import psutil
import pytest
import yaml

from tests.e2e.browser import chromium
from tests.e2e.small import (
    CompletedCommand,
    foreign_lines,
    free_port,
    have_ended,
    kill_group,
    run_raysys,
    start_raysys,
    wait_for,
    write_config,
)
from tests.e2e.stub_shelf import StubShelf, open_shelf

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

    from tests.unit.serve.shop import Shop

Json: TypeAlias = Any
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class CompletedRun:
    """One `raysys run`: its configuration file, its root, and what the process returned."""

    config: Path
    root: Path
    run: CompletedCommand


@dataclass(frozen=True)
class Served:
    """A running service over the artifacts of a completed run."""

    url: str
    root: Path
    pid: int


@pytest.fixture(scope="session")
def completed_run(tmp_path_factory: pytest.TempPathFactory) -> CompletedRun:
    """All stages with the small configuration, run by one process with exit status 0."""
    folder = tmp_path_factory.mktemp("path")
    config = write_config(folder)
    finished = run_raysys("run", str(config), folder=folder, timeout_s=280)
    assert finished.status == 0, finished.stderr
    return CompletedRun(config, folder / "root", finished)


@pytest.fixture(scope="session")
def served(completed_run: CompletedRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The HTTP service. At the end, SIGTERM must stop it with status 0; stdout must hold only its address."""
    log_stem = tmp_path_factory.mktemp("serve") / "serve"
    port = free_port()
    url = f"http://127.0.0.1:{port}/"
    process = start_raysys("serve", str(completed_run.config), f"serve.port={port}", log_stem=log_stem)
    try:
        wait_until_ready(url, process, log_stem)
        yield Served(url, completed_run.root, process.pid)
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
    finally:
        kill_group(process)
    stderr = log_stem.with_suffix(".err").read_text()
    assert process.returncode == 0, stderr
    assert foreign_lines(stderr) == []
    assert log_stem.with_suffix(".out").read_text() == f"{url}\n"


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[httpx.Client]:
    """A client of the service."""
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


@pytest.fixture(scope="module")
def ready(client: httpx.Client) -> Json:
    """What /readyz answers."""
    return json_of(client.get("/readyz"))


@pytest.fixture(scope="module")
def items(client: httpx.Client) -> list[Json]:
    """Twenty items of the index."""
    sample: list[Json] = json_of(client.get("/v1/items", params={"limit": 20, "seed": 3}))["items"]
    return sample


@pytest.fixture(scope="module")
def photo(client: httpx.Client, items: list[Json]) -> bytes:
    """The photo of the first item."""
    return client.get(items[0]["image_url"]).content


def json_of(response: httpx.Response) -> Json:
    """The body of a response, whose status must be 200."""
    assert response.status_code == 200, response.text
    return response.json()


def wait_until_ready(url: str, process: subprocess.Popen[bytes], log_stem: Path) -> None:
    """Wait until the service prints its address, which it does when every deployment is ready."""
    out = log_stem.with_suffix(".out")
    deadline = time.monotonic() + START_TIMEOUT_S
    while url not in out.read_text():
        assert process.poll() is None, log_stem.with_suffix(".err").read_text()
        assert time.monotonic() < deadline, "the service did not start in time"
        time.sleep(0.2)
    assert httpx.get(f"{url}readyz", timeout=30).status_code == httpx.codes.OK


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A root with an encoder and its index."""
    # Here, because most tests need no Ray Serve; in this order, because the first imports it without warnings.
    import tests.unit.serve.conftest  # noqa: F401  # imported for the order
    from tests.unit.serve.shop import Shop

    shop = Shop(tmp_path / "root", monkeypatch, num_files=2)
    shop.publish(1)
    return shop


@pytest.fixture
def service(shop: Shop, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Path, int]]:
    """The address, the configuration and the process of a service with these settings.

    At the end, SIGTERM must stop it with status 0, and every process below it.
    """
    port = free_port()
    tree = {
        "name": "shop",
        "root": str(shop.root),
        "projection": {"dimensions": None},
        "serve": {"port": port, **request.param},
        "ray": {"num_cpus": 8, "object_store_megabytes": 200},
    }
    config = tmp_path / "shop.yaml"
    config.write_text(yaml.safe_dump(tree))
    url, log_stem = f"http://127.0.0.1:{port}/", tmp_path / "serve"
    process = start_raysys("serve", str(config), log_stem=log_stem)
    try:
        wait_until_ready(url, process, log_stem)
        yield url, config, process.pid
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
    finally:
        kill_group(process)
    assert process.returncode == 0, log_stem.with_suffix(".err").read_text()
    wait_for(lambda: have_ended(children))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A headless browser."""
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def running_shelf() -> Iterator[StubShelf]:
    """The stub of the service."""
    with open_shelf() as shelf:
        yield shelf


@pytest.fixture
def shelf(running_shelf: StubShelf) -> StubShelf:
    """The stub in its initial state."""
    running_shelf.reset()
    return running_shelf


@pytest.fixture
def console() -> list[str]:
    """Errors and warnings of the browser console; a test must clear those that it expects."""
    return []


@pytest.fixture
def page(browser: Browser, shelf: StubShelf, console: list[str]) -> Iterator[Page]:
    """A page of the stub, without animations; at the end, its console must have no errors."""

    def record(message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            console.append(message.text)

    # Without animations, because they use a CPU core while they run.
    context = browser.new_context(base_url=shelf.url, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.add_init_script("let draws = 0; Math.random = () => draws++ / 1e6")  # seeds 0, 1, ...
    page.on("console", record)
    page.on("pageerror", lambda error: console.append(str(error)))
    yield page
    context.close()
    assert console == []
