"""HAProxy refuses what gateways would refuse, in the service's error format. The gateways are a stub."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest

from raysys.config import Config
from raysys.config.schema import ServeConfig
from raysys.serve import ingress
from tests.e2e.small import free_port
from tests.e2e.test_ingress import LOOPBACK, haproxy_command, response_of, running

GENEROUS_S = 60.0
PHOTO = {"image": ("a.jpg", b"photo")}
ITEM = "v1/items/a/similar"


@dataclass
class StubGateway:
    """Answers requests whose path contains `held` only once `may_answer` is set; `arrived` counts these."""

    arrived: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    may_answer: threading.Event = field(default_factory=threading.Event)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        request.rfile.read(int(request.headers.get("content-length", 0)))
        if "held" in request.path:
            self.arrived.release()
            assert self.may_answer.wait(GENEROUS_S)
        request.send_response(200)
        request.send_header("Content-Length", "0")
        request.end_headers()


@dataclass
class Ingress:
    """HAProxy before a stub."""

    port: int
    gateway: StubGateway
    threads: ThreadPoolExecutor

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}/"

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=GENEROUS_S)

    def post_photo(self, path: str = "v1/search") -> httpx.Response:
        return httpx.post(f"{self.url}{path}", files=PHOTO, timeout=GENEROUS_S)

    @contextlib.contextmanager
    def held(self, count: int, send: Callable[[], httpx.Response]) -> Iterator[None]:
        """The gateways work on `count` requests while the block runs; they are answered in the end."""
        self.gateway.may_answer.clear()
        responses = [self.threads.submit(send) for _ in range(count)]
        for _ in responses:
            assert self.gateway.arrived.acquire(timeout=GENEROUS_S)
        yield
        self.gateway.may_answer.set()
        assert [response.result().status_code for response in responses] == [200] * count


@pytest.fixture
def start_ingress(tmp_path: Path) -> Iterator[Callable[..., Ingress]]:
    """Start HAProxy with these settings of `serve`, before `gateways` stubs."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(os.environ))

        def start(*, gateways: int = 1, **settings: Any) -> Ingress:
            stub = StubGateway()
            config = Config(serve=ServeConfig.model_validate(settings))
            stack.enter_context(ingress.configured(config, starts_cluster=True))
            gateway_ports = [stack.enter_context(listening(stub)) for _ in range(gateways)]
            port = free_port()
            process = stack.enter_context(running(haproxy_command(tmp_path, port, gateway_ports)))
            started = Ingress(port, stub, stack.enter_context(ThreadPoolExecutor(8)))
            stack.callback(stub.may_answer.set)
            assert response_of(f"{started.url}healthz", process).status_code == 200
            return started

        yield start


@contextlib.contextmanager
def listening(stub: StubGateway) -> Iterator[int]:
    """The port of a server that answers as `stub`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            stub.answer(self)

        do_POST = do_PUT = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            pass  # HAProxy resets connections when it ends

    with Server((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def assert_overloaded(response: httpx.Response) -> None:
    assert response.status_code == 503
    assert response.headers["Retry-After"] == "1"
    assert response.json()["error"]["code"] == "overloaded"


@pytest.mark.parametrize("gateways", [1, 2])
def test_queries_by_item_beyond_those_of_all_gateways_are_refused(
    start_ingress: Callable[..., Ingress], gateways: int
) -> None:
    ingress = start_ingress(gateways=gateways, max_item_queries=2)
    with ingress.held(2 * gateways, lambda: ingress.get("v1/items/held/similar")):
        assert_overloaded(ingress.get(ITEM))
        assert ingress.get("v1/items").status_code == 200
        assert ingress.post_photo().status_code == 200
    assert ingress.get(ITEM).status_code == 200


def test_a_quarter_of_the_queries_by_item_is_accepted_while_many_are_refused(
    start_ingress: Callable[..., Ingress],
) -> None:
    ingress = start_ingress(max_item_queries=8)

    def hold_and_ask(count: int) -> httpx.Response:
        with ingress.held(count, lambda: ingress.get("v1/items/held/similar")):
            return ingress.get(ITEM)

    assert hold_and_ask(7).status_code == 200
    for _ in range(10):  # rates are those of the last second, which a slow machine may have filled otherwise
        with ingress.held(8, lambda: ingress.get("v1/items/held/similar")):
            for _ in range(40):
                assert_overloaded(ingress.get(ITEM))
        response = hold_and_ask(2)
        if response.status_code != 200:
            break
    assert_overloaded(response)
    time.sleep(2.1)  # HAProxy counts the last second by the last two periods of a second
    assert hold_and_ask(7).status_code == 200


def test_photos_beyond_those_of_the_encoders_are_refused(start_ingress: Callable[..., Ingress]) -> None:
    ingress = start_ingress(gateways=2, max_encoder_requests=1, encoder_replicas=2)
    with ingress.held(2, lambda: ingress.post_photo("v1/search?held")):
        assert_overloaded(ingress.post_photo())
        assert ingress.get(ITEM).status_code == 200
    assert ingress.post_photo().status_code == 200


def test_changes_with_photos_take_no_place_of_queries(start_ingress: Callable[..., Ingress]) -> None:
    """They wait for the database, too; a gateway counts them while they are embedded."""
    ingress = start_ingress(max_encoder_requests=1)

    def put_photo() -> httpx.Response:
        return httpx.put(f"{ingress.url}v1/items/held", files=PHOTO, timeout=GENEROUS_S)

    with ingress.held(3, put_photo):
        assert ingress.post_photo().status_code == 200


def test_photo_that_arrives_slowly_takes_no_place_of_another(start_ingress: Callable[..., Ingress]) -> None:
    ingress = start_ingress(max_encoder_requests=1)
    head = (
        "POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n--b"
    )
    with socket.create_connection((LOOPBACK, ingress.port)) as slow:
        slow.sendall(head.encode())
        assert ingress.post_photo().status_code == 200


def response_to_incomplete(ingress: Ingress, sent: str) -> str:
    """The response to a request of which no more is sent."""
    with socket.create_connection((LOOPBACK, ingress.port), timeout=GENEROUS_S) as slow:
        slow.sendall(sent.encode())
        return slow.makefile("rb").read().decode()


def test_photo_that_does_not_arrive_in_time_is_refused(start_ingress: Callable[..., Ingress]) -> None:
    head = "POST /v1/search HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nContent-Type: multipart/form-data\r\n\r\n"
    response = response_to_incomplete(start_ingress(body_timeout_s=0.1), head)
    assert response.startswith("HTTP/1.1 408 Request Timeout\r\n")
    assert "body_timeout" in response


def test_head_that_does_not_arrive_in_time_is_refused(start_ingress: Callable[..., Ingress]) -> None:
    response = response_to_incomplete(start_ingress(body_timeout_s=0.1), "GET /v1/items HTTP/1.1\r\nHost: ")
    assert response.startswith("HTTP/1.1 408 ")  # HAProxy has one page for it, whatever its settings


def test_probes_and_operators_are_answered_when_all_else_is_refused(
    start_ingress: Callable[..., Ingress],
) -> None:
    ingress = start_ingress(max_requests=2)
    with ingress.held(2, lambda: ingress.get("v1/items?held")):
        assert_overloaded(ingress.get("v1/items"))
        for path in ("healthz", "readyz", "v1/admin/versions"):
            assert ingress.get(path).status_code == 200, path
    assert ingress.get("v1/items").status_code == 200
