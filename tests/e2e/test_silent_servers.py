"""Servers that do not answer, or are not what the setting says: every command ends by itself, or at Ctrl-C."""

from __future__ import annotations

import contextlib
import http.server
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from raysys import cli, storage
from tests.e2e.small import kill_group, start_raysys, write_config
from tests.s3 import faulty_proxy, make_bucket

TABLE = ("catalog.kind=table", "catalog.path=s3://shop/items.csv")
CLOSED = 1  # a port that nothing listens on


@pytest.fixture(params=["silent", "http", "closed"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    """A port that accepts and never answers, one that speaks HTTP, and a closed one."""
    if request.param == "silent":
        with silent_server() as number:
            yield number
    elif request.param == "http":
        with http_server(404) as number:
            yield number
    else:
        yield CLOSED


@contextlib.contextmanager
def silent_server() -> Iterator[int]:
    """Connections are accepted by the operating system; nobody reads them."""
    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        yield listener.getsockname()[1]


@contextlib.contextmanager
def http_server(status: int) -> Iterator[int]:
    """A server that responds to every request with `status`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_HEAD = do_PUT = do_POST = do_DELETE = do_GET

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_address_that_is_not_ray_is_reported(
    port: int, scheme: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"{scheme}127.0.0.1:{port}"
    words = [f"ray.address={address}", "ray.connect_timeout_s=1"]
    assert cli.main(["pack", str(write_config(tmp_path)), *words]) == 1
    error = last_line(capsys.readouterr().err)
    assert error.startswith(f"raysys: ray.address {address}: no cluster answers (")
    assert "`ray status`" in error


def test_dashboard_that_is_not_one_is_reported(
    port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    address = f"http://127.0.0.1:{port}"
    words = ["submit", str(write_config(tmp_path)), "pack", "--address", address, "ray.connect_timeout_s=1"]
    assert cli.main(words) == 1
    error = last_line(capsys.readouterr().err)
    assert error.startswith(f"raysys: {address}: ")
    assert "http://HEAD:8265" in error


@pytest.mark.parametrize("status", [403, 503])
@pytest.mark.parametrize("words", [("root=s3://shop/raysys",), TABLE], ids=["root", "catalogue"])
def test_store_that_refuses_is_reported(
    status: int,
    words: tuple[str, ...],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with http_server(status) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        config = str(write_config(tmp_path))
        ended = cli.main(["pack", config, "--dry-run", "storage.contact_timeout_s=10", *words])
    error = last_line(capsys.readouterr().err)
    assert ended == (2 if status == 403 else 1)
    assert error.startswith("raysys: s3://shop/")
    assert ("AWS_ACCESS_KEY_ID" if status == 403 else "run again") in error


@pytest.mark.parametrize("words", [("root=s3://shop/raysys",), TABLE], ids=["root", "catalogue"])
@pytest.mark.parametrize("interrupt", [False, True], ids=["time limit", "Ctrl-C"])
def test_wait_for_a_silent_store_ends(
    interrupt: bool, words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit = "storage.contact_timeout_s=" + ("300" if interrupt else "1")
    with silent_server() as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        config = str(write_config(tmp_path))
        process = start_raysys("pack", config, "--dry-run", limit, *words, log_stem=tmp_path / "run")
        try:
            if interrupt:
                wait_for_text(tmp_path / "run.err", "s3://shop: still waiting after")
                process.send_signal(signal.SIGINT)
            status = process.wait(60 if not interrupt else 10)
        finally:
            kill_group(process)
    error = last_line((tmp_path / "run.err").read_text())
    assert status == (130 if interrupt else 1)
    assert error.startswith("raysys: stopped" if interrupt else "raysys: s3://shop/")
    assert interrupt or "gave no answer within 1 s" in error


def test_read_that_gets_no_more_bytes_is_repeated_after_seconds(
    s3_server: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the time limits of the defaults: nothing waits for `storage.operation_timeout_s`."""
    make_bucket(s3_server, "silent")
    data = bytes(range(256)) * 4096
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_server}")
    storage.write_bytes("s3://silent/a", data)
    started = time.monotonic()
    with faulty_proxy(s3_server, every=3, faults=("silent",)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        while not proxy.num_half:  # two requests a read: one for the size, one for the data
            assert storage.read_bytes("s3://silent/a") == data
    assert time.monotonic() - started < 120


def wait_for_text(path: Path, text: str, timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while text not in path.read_text():
        assert time.monotonic() < deadline, path.read_text()
        time.sleep(0.1)


def last_line(text: str) -> str:
    assert "Traceback" not in text
    return text.splitlines()[-1]
