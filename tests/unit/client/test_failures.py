"""Errors of the service become exceptions of raysys, and transient failures are retried within the deadline."""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
import time
import traceback
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest

import raysys
from raysys import errors
from raysys.client.attempts import Attempts
from raysys.errors import InputError, RaysysError, ServiceUnavailable
from tests.unit.client.conftest import URL, Send, Service

READY = httpx.Response(
    200,
    json={
        "status": "ready",
        "space_id": "5",
        "index_version": "d.0",
        "num_items": 1,
        "last_change": 0,
        "has_encoder": True,
    },
)
TOKEN = "secret-token-of-a-shop"
WHERE = f"GET {URL}/readyz"


def error(status: int, code: str, message: str = "k: wrong", **headers: str) -> httpx.Response:
    body = {"error": {"code": code, "message": message}}
    return httpx.Response(
        status, json=body, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )


def busy(**headers: str) -> httpx.Response:
    return error(503, "overloaded", "too many requests are waiting; try again", **headers)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (409, "space_mismatch", errors.SpaceMismatch),
        (409, "no_encoder", errors.NoEncoder),
        (404, "not_found", errors.MissingError),
        (422, "invalid_input", errors.InputError),
        (413, "too_large", errors.TooLarge),
        (415, "unreadable_image", errors.UnreadableImage),
        (415, "unsupported_media_type", errors.InputError),
        (401, "unauthorized", errors.Unauthorized),
        (403, "forbidden", errors.Forbidden),
        (500, "damaged_data", errors.DamagedData),
        (500, "internal", errors.RaysysError),
        (503, "storage_failed", errors.StorageError),
        (503, "overloaded", errors.ServiceUnavailable),
        (429, "rate_limited", errors.ServiceUnavailable),
        (418, "new_code", errors.InputError),
        (500, "stopped", errors.ServiceUnavailable),
    ],
)
def test_an_error_of_the_service_has_its_class_code_and_message(
    send: Send, waits: list[float], status: int, code: str, kind: type[RaysysError]
) -> None:
    with pytest.raises(RaysysError) as caught:
        send(Service(error(status, code)), "ready")
    assert type(caught.value) is kind
    assert (caught.value.code, caught.value.http_status) == (code, status)
    assert str(caught.value) == f"{WHERE}: k: wrong"


def test_a_message_is_one_line(send: Send) -> None:
    with pytest.raises(InputError) as caught:
        send(Service(error(422, "invalid_input", "a\nb\x1b[2J")), "ready")
    assert str(caught.value) == rf"{WHERE}: a\nb\x1b[2J"


@pytest.mark.parametrize(
    ("response", "kind", "message"),
    [
        (httpx.Response(200, html="<html>Sign in</html>"), InputError, "HTTP 200, not a response of raysys (body: invalid json"),
        (httpx.Response(404, html="<html>"), InputError, "HTTP 404, not a response of raysys (content type 'text/html'); check"),
        (httpx.Response(500, html="<html>"), ServiceUnavailable, "HTTP 500, not a response of raysys"),
        (httpx.Response(401, html="<html>"), errors.Unauthorized, "HTTP 401"),
        (httpx.Response(413, html="<html>"), errors.TooLarge, "HTTP 413"),
        (httpx.Response(204), InputError, "HTTP 204, not a response of raysys (content type '')"),
        (httpx.Response(404, json={"detail": "Not Found"}), InputError, "(content type 'application/json')"),
        (httpx.Response(307, headers={"Location": "https://h/x"}), InputError, "(a redirect to https://h/x)"),
        (httpx.Response(200, json=[1]), InputError, "HTTP 200, not a response of raysys"),
    ],
)  # fmt: skip
def test_a_response_of_something_else_is_one_line(
    send: Send, response: httpx.Response, kind: type[RaysysError], message: str
) -> None:
    service = Service(response)
    with pytest.raises(RaysysError) as caught:
        send(service, "ready")
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{WHERE}: HTTP ")
    assert "\n" not in str(caught.value)
    assert len(service.requests) == 1


def test_a_page_is_not_a_photo(send: Send) -> None:
    with pytest.raises(InputError, match="content type 'text/html'"):
        send(Service(httpx.Response(200, html="<html>")), "photo", "m1")


@pytest.mark.parametrize(
    "failure",
    [
        httpx.ConnectError("[Errno 111] Connection refused"),
        httpx.ReadError("reset"),
        httpx.RemoteProtocolError("Server disconnected without sending a response."),
        busy(),
        error(429, "rate_limited"),
        httpx.Response(502, html="<html>"),
        httpx.Response(504, html="<html>"),
    ],
    ids=repr,
)
def test_transient_failures_are_retried(
    send: Send, waits: list[float], failure: httpx.Response | httpx.RequestError
) -> None:
    service = Service(failure, failure, READY)
    assert send(service, "ready").num_items == 1
    assert len(service.requests) == 3
    assert 0.05 <= waits[0] <= 0.1 <= waits[1] <= 0.2


@pytest.mark.parametrize("status", [400, 401, 404, 409, 422, 500])
def test_other_errors_are_not_retried(send: Send, waits: list[float], status: int) -> None:
    service = Service(error(status, "x"), READY)
    with pytest.raises(RaysysError):
        send(service, "ready")
    assert len(service.requests) == 1


def test_a_change_is_sent_again_unchanged(send: Send, waits: list[float]) -> None:
    done = httpx.Response(200, json={"changes": [{"item_id": "m1", "change": 4}]})
    service = Service(httpx.ReadError("reset"), done)
    assert send(service, "delete", "m1") == 4
    first, second = service.requests
    assert first.content == second.content == b'{"changes": [{"kind": "delete", "item_id": "m1"}]}'


def test_the_service_says_how_long_to_wait(send: Send, waits: list[float]) -> None:
    send(Service(busy(Retry_After="3"), error(429, "rate_limited", Retry_After="0"), READY), "ready")
    assert waits == [3, 0]
    in_five_s = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=5)
    send(Service(busy(Retry_After=email.utils.format_datetime(in_five_s, usegmt=True)), READY), "ready")
    assert 3 < waits[2] <= 5
    send(Service(busy(Retry_After="soon"), READY), "ready")
    assert waits[3] <= 0.1


def test_no_wait_beyond_the_timeout(send: Send, waits: list[float]) -> None:
    service = Service(busy(Retry_After="11"), READY)
    with pytest.raises(ServiceUnavailable, match=r"waiting; try again \(Retry-After: 11 s\)$"):
        send(service, "ready", settings={"timeout_s": 10})
    assert (len(service.requests), waits) == (1, [])


@pytest.mark.parametrize("retries", [0, 3])
def test_attempts_end_with_the_last_error(send: Send, waits: list[float], retries: int) -> None:
    service = Service(busy())
    with pytest.raises(ServiceUnavailable, match="too many requests are waiting"):
        send(service, "ready", settings={"retries": retries})
    assert (len(service.requests), len(waits)) == (retries + 1, retries)


def test_an_unreachable_service_is_one_line(send: Send, waits: list[float]) -> None:
    with pytest.raises(ServiceUnavailable) as caught:
        send(Service(httpx.ConnectError("[Errno 111] Connection refused")), "ready")
    assert str(caught.value) == (
        f"{WHERE}: no response in 3 attempts ([Errno 111] Connection refused); "
        "check that the service runs at this address"
    )


def test_a_silent_service_is_one_line(send: Send) -> None:
    service = Service(httpx.ReadTimeout(""))
    with pytest.raises(ServiceUnavailable) as caught:
        send(service, "ready", settings={"timeout_s": 0.05, "retries": 0})
    assert str(caught.value) == (
        f"{WHERE}: no complete response within 0.05 s; check the service, or raise timeout_s of the client"
    )


def test_an_attempt_has_what_is_left_of_the_timeout(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    attempts = Attempts("GET x", 10, 2)
    now[0] = 104
    assert attempts.remaining_s() == 6
    now[0] = 109.99
    assert attempts.wait_s(httpx.ConnectError("refused")) is None  # it would wait at least 0.05 s
    now[0] = 110
    with pytest.raises(ServiceUnavailable, match="within 10 s"):
        attempts.remaining_s()


class Drip(httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body that never ends."""

    def __iter__(self) -> Iterator[bytes]:
        while True:
            yield b" "

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0)
            yield b" "


def test_a_response_that_never_ends_is_given_up(send: Send) -> None:
    class Dripping(Service):
        def __call__(self, request: httpx.Request) -> httpx.Response:
            return httpx.Response(200, stream=Drip())

    with pytest.raises(ServiceUnavailable, match=r"no complete response within 0\.05 s"):
        send(Dripping(), "ready", settings={"timeout_s": 0.05})


def test_the_token_is_sent_and_never_shown(send: Send, waits: list[float]) -> None:
    service = Service(READY)
    send(service, "ready", settings={"token": TOKEN})
    assert service.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    clients = [raysys.Client(URL, token=TOKEN), raysys.AsyncClient(URL, token=TOKEN)]
    assert repr(clients[0]) == f"Client('{URL}', timeout_s=10, retries=2)"
    assert not [client for client in clients if TOKEN in repr(vars(client))]
    echo = httpx.Response(502, html=f"<html>Authorization: Bearer {TOKEN}")
    for outcome in (
        error(401, "unauthorized"),
        echo,
        httpx.ConnectError("refused"),
        httpx.Response(200, html=TOKEN),
    ):
        with pytest.raises(RaysysError) as caught:
            send(Service(outcome), "ready", settings={"token": TOKEN})
        assert TOKEN not in "".join(traceback.format_exception(caught.value))
        assert TOKEN not in json.dumps(vars(caught.value), default=repr)


@pytest.mark.parametrize(
    ("url", "settings", "message"),
    [
        ("127.0.0.1:8000", {}, "url: "),
        ("ftp://h", {}, "such as http://127.0.0.1:8000"),
        ("http://", {}, "such as http://127.0.0.1:8000"),
        ("http://h/?a=b", {}, "such as http://127.0.0.1:8000"),
        ("http://[::1", {}, "such as http://127.0.0.1:8000"),
        ("http://u:hidden@h", {}, "give token= instead"),
        ("http://u:hid/den@h", {}, "give token= instead"),
        (URL, {"token": "hidden\n"}, "token: is empty, or has"),
        (URL, {"token": ""}, "token: is empty, or has"),
        (URL, {"token": "hiddené"}, "token: is empty, or has"),
        (URL, {"timeout_s": 0}, "timeout_s: "),
        (URL, {"timeout_s": float("nan")}, "timeout_s: "),
        (URL, {"retries": -1}, "retries: "),
    ],
)
@pytest.mark.parametrize("client", [raysys.Client, raysys.AsyncClient])
def test_invalid_settings_are_refused(
    client: type, url: str, settings: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        client(url, **settings)
    assert "hid" not in "".join(traceback.format_exception(caught.value)).rpartition("InputError")[2]
