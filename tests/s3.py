"""A local S3 server (moto), and a proxy in front of it that injects a fault into every n-th request.

`python -m tests.s3 PORT LATENCY_MS BUCKET` runs a server whose every answer takes at least LATENCY_MS, for
`raysys bench stream bench.remote_root=s3://BUCKET/bench`.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

START_TIMEOUT_S = 60.0
FAULTS = ("500", "reset", "503", "cut", "slow")


@contextlib.contextmanager
def moto_server() -> Iterator[int]:
    """Run a server without buckets for the duration of the block; yields its port."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _is_running(port):
            assert process.poll() is None, "moto exited during its start"
            assert time.monotonic() < deadline, "moto did not start"
            time.sleep(0.1)
        yield port
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    """An unused loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


def make_bucket(port: int, name: str) -> None:
    """Create an empty bucket."""
    _send(port, "PUT", name)


class FaultyProxy(ThreadingHTTPServer):
    """Forwards requests to a port of this machine; every `every`-th one gets the next of `faults` in turn.

    `500` and `503` respond at once; `reset` and `cut` forward the request and close the connection in the
    middle of the response (with RST or FIN); `slow` sends the response in ten parts; `silent` sends half of it
    and keeps the connection open.
    """

    daemon_threads = True

    def __init__(self, upstream_port: int, *, port: int, every: int, faults: Sequence[str]) -> None:
        super().__init__(("127.0.0.1", port), _ProxyHandler)
        self.upstream_port = upstream_port
        self.injected: Counter[str] = Counter()
        self.num_half, self.is_over = 0, threading.Event()
        self._every, self._faults = every, faults
        self._numbers = itertools.count(1)

    @property
    def url(self) -> str:
        """The address of the proxy."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def next_fault(self) -> str:
        """The fault of the next request, or an empty string."""
        number = next(self._numbers)
        if number % self._every:
            return ""
        fault = self._faults[number // self._every % len(self._faults)]
        self.injected[fault] += 1
        return fault

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: broken connections are expected here."""


@contextlib.contextmanager
def faulty_proxy(
    upstream_port: int, *, port: int = 0, every: int, faults: Sequence[str] = FAULTS
) -> Iterator[FaultyProxy]:
    """Run a proxy for the duration of the block, on a free port if none is given."""
    proxy = FaultyProxy(upstream_port, port=port, every=every, faults=faults)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.is_over.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()


class _ProxyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyProxy

    def log_message(self, *_: object) -> None:
        pass

    def _forward(self) -> None:
        body = self._body()
        fault = self.server.next_fault()
        if fault in ("500", "503"):
            code = {"500": "InternalError", "503": "SlowDown"}[fault]
            error = f"<Error><Code>{code}</Code><Message>injected</Message></Error>".encode()
            self._respond(int(fault), [("Content-Type", "application/xml")], error, "")
            return
        upstream = http.client.HTTPConnection("127.0.0.1", self.server.upstream_port)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        upstream.request(self.command, self.path, body=body, headers=headers)
        response = upstream.getresponse()
        content = response.read()
        upstream.close()
        forwarded = [(name, value) for name, value in response.getheaders() if name.lower() not in _FRAMING]
        length = response.getheader("Content-Length") if self.command == "HEAD" else None
        self._respond(response.status, forwarded, content, fault, length)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _forward

    def _body(self) -> bytes | None:
        if "chunked" not in self.headers.get("Transfer-Encoding", ""):
            length = int(self.headers.get("Content-Length", 0))
            return self.rfile.read(length) if length else None
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        while self.rfile.readline().strip():  # trailers
            pass
        return b"".join(parts)

    def _respond(
        self, status: int, headers: list[tuple[str, str]], body: bytes, fault: str, length: str | None = None
    ) -> None:
        if fault in ("reset", "cut") and not body:
            self._break(fault)
            return
        self.send_response_only(status)
        for name, value in headers:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", length or str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if fault in ("reset", "cut"):
            self.wfile.write(body[: len(body) // 2])
            self._break(fault)
        elif fault == "silent" and body:
            self.server.num_half += 1
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.is_over.wait()
            self.close_connection = True
        elif fault == "slow":
            part_bytes = len(body) // 10 + 1
            for start in range(0, len(body), part_bytes):
                self.wfile.write(body[start : start + part_bytes])
                time.sleep(0.02)
        else:
            self.wfile.write(body)

    def _break(self, fault: str) -> None:
        self.close_connection = True
        if fault == "reset":  # with this option, close() sends RST
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()


_HOP_BY_HOP = ("connection", "transfer-encoding", "expect", "content-length")
_FRAMING = ("connection", "transfer-encoding", "content-length", "server", "date")


def _is_running(port: int) -> bool:
    try:
        _send(port, "GET", "")
    except OSError:
        return False
    return True


def _send(port: int, method: str, path: str) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, f"/{path}")
        return connection.getresponse().read()
    finally:
        connection.close()


def serve_with_latency(port: int, latency_s: float, bucket: str) -> None:
    """Run a server with one empty bucket until the process ends; every request waits `latency_s` first."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import run_simple

    application = DomainDispatcherApplication(create_backend_app)

    def delayed(environ: dict[str, Any], start_response: Any) -> Any:
        time.sleep(latency_s)
        return application(environ, start_response)

    def make_bucket_once_running() -> None:
        while not _is_running(port):
            time.sleep(0.1)
        make_bucket(port, bucket)

    threading.Thread(target=make_bucket_once_running, daemon=True).start()
    run_simple("127.0.0.1", port, delayed, threaded=True)


if __name__ == "__main__":
    serve_with_latency(int(sys.argv[1]), float(sys.argv[2]) / 1000, sys.argv[3])
