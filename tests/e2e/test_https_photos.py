"""Photos over real HTTPS: temporary failures are retried, slow and forbidden hosts are refused."""

from __future__ import annotations

import collections
import http.server
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest
import trustme

from raysys.config.schema import PackConfig
from raysys.errors import MissingError, UnreadableImage
from raysys.pack import fetch

PHOTO = b"photo " * 10_000
PACK = PackConfig(allowed_hosts=("localhost",), fetch_timeout_s=0.6, max_photo_megabytes=0.1)


class Host(http.server.BaseHTTPRequestHandler):
    """A photo host; the path of a request selects how it fails."""

    requests: ClassVar[collections.Counter[str]] = collections.Counter()
    redirect_to = ""

    def do_GET(self) -> None:
        self.requests[self.path] += 1
        is_first = self.requests[self.path] == 1
        match self.path:
            case "/fails-once" if is_first:
                self.send_error(500)
            case "/always-busy":
                self.send_error(503)
            case "/gone":
                self.send_error(404)
            case "/moved":
                self._send(302, b"", Location="/photo")
            case "/moved-away":
                self._send(302, b"", Location=self.redirect_to)
            case "/reset-once" if is_first:
                self._send(200, PHOTO, num_bytes=1000)
                linger = struct.pack("ii", 1, 0)  # close with a reset
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                self.connection.close()
            case "/cut-once" if is_first:
                self._send(200, PHOTO, num_bytes=1000)
            case "/silent":
                time.sleep(1.5)
            case "/trickles":
                self._send(200, PHOTO, num_bytes=0)
                for byte in PHOTO[:30]:
                    self.wfile.write(bytes([byte]))
                    self.wfile.flush()
                    time.sleep(0.1)
            case "/large":
                self._send(200, PHOTO * 2)
            case _:
                self._send(200, PHOTO)

    def _send(self, status: int, body: bytes, *, num_bytes: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[:num_bytes])

    def log_message(self, *_: object) -> None:
        """Log nothing."""


class QuietServer(http.server.ThreadingHTTPServer):
    """Ignores connections that clients close."""

    def handle_error(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a host whose certificate the client trusts."""
    authority, folder = trustme.CA(), tmp_path_factory.mktemp("tls")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    server = QuietServer(("127.0.0.1", 0), Host)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
        patch.setenv("NO_PROXY", "localhost")
        fetch._shared_client.cache_clear()
        yield f"https://localhost:{server.server_port}"
        fetch._shared_client().close()
        fetch._shared_client.cache_clear()
    server.shutdown()
    server.server_close()


def fetched(url: str) -> bytes:
    return fetch.fetch(url, PACK, sleep=lambda _: None)


def refusal(url: str) -> tuple[str, str]:
    with pytest.raises(UnreadableImage) as caught:
        fetched(url)
    return caught.value.reason, str(caught.value)


@pytest.mark.parametrize(
    ("path", "num_requests"),
    [("/photo", 1), ("/fails-once", 2), ("/reset-once", 2), ("/cut-once", 2), ("/moved", 1)],
)
def test_photo_arrives_complete_after_retries(host: str, path: str, num_requests: int) -> None:
    Host.requests.clear()
    assert fetched(host + path) == PHOTO
    assert Host.requests[path] == num_requests


@pytest.mark.parametrize("path", ["/always-busy", "/silent", "/trickles"])
def test_host_that_never_sends_the_complete_photo_is_unreachable_after_three_attempts(
    host: str, path: str
) -> None:
    Host.requests.clear()
    started = time.monotonic()
    reason, message = refusal(host + path)
    assert reason == "unreachable"
    assert message.startswith(f"{host}{path}: no answer in 3 tries (")
    assert Host.requests[path] == 3
    assert time.monotonic() - started < 3 * 2 * PACK.fetch_timeout_s + 1


def test_large_missing_and_forbidden_photos_have_different_reasons(host: str) -> None:
    assert refusal(f"{host}/large")[0] == "too_many_bytes"
    with pytest.raises(MissingError, match="status 404"):
        fetched(f"{host}/gone")
    assert refusal(host.replace("localhost", "127.0.0.1"))[0] == "not_allowed_host"
    assert refusal(host.replace("https", "http"))[0] == "not_allowed_host"


def test_redirect_to_another_host_is_not_followed(host: str) -> None:
    Host.requests.clear()
    Host.redirect_to = host.replace("localhost", "127.0.0.1") + "/photo"
    reason, message = refusal(f"{host}/moved-away")
    assert reason == "not_allowed_host"
    assert "host '127.0.0.1' is not allowed; add it to pack.allowed_hosts" in message
    assert Host.requests["/photo"] == 0


def test_host_without_a_trusted_certificate_is_unreachable(
    host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other.pem"))
    fetch._shared_client.cache_clear()
    reason, message = refusal(f"{host}/photo")
    fetch._shared_client().close()
    fetch._shared_client.cache_clear()
    assert reason == "unreachable"
    assert "certificate verify failed" in message
