"""Photos are fetched from allowed hosts only, with limits on size, redirects and retries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from raysys.config.schema import PackConfig
from raysys.errors import MissingError, UnreadableImage
from raysys.pack.fetch import fetch, is_allowed

URL = "https://img.example.com/a.jpg"
SECTION = PackConfig(allowed_hosts=("img.example.com", ".cdn.net"), max_photo_megabytes=0.001)


def client_with(responses: Sequence[httpx.Response | Exception]) -> tuple[httpx.Client, list[str]]:
    """A client that receives these responses in turn, and the list of URLs it requests."""
    requested: list[str] = []
    remaining = iter(responses)

    def respond(request: httpx.Request) -> httpx.Response:
        requested.append(str(request.url))
        response = next(remaining)
        if isinstance(response, Exception):
            raise response
        return response

    return httpx.Client(transport=httpx.MockTransport(respond)), requested


def refusal(uri: str, *responses: httpx.Response | Exception) -> tuple[str, str, list[str]]:
    """Reason, message and requested URLs of a photo that is refused."""
    client, requested = client_with(responses)
    with pytest.raises(UnreadableImage) as caught:
        fetch(uri, SECTION, client=client, sleep=lambda _: None)
    return caught.value.reason, str(caught.value), requested


@pytest.mark.parametrize(
    ("host", "allowed"),
    [
        ("img.example.com", True),
        ("IMG.Example.com.", True),
        ("example.com", False),
        ("x.img.example.com", False),
        ("img.example.com.evil.org", False),
        ("a.b.cdn.net", True),
        ("cdn.net", False),
        ("evilcdn.net", False),
        ("", False),
    ],
)
def test_host_is_allowed_by_its_full_name_or_its_domain(host: str, allowed: bool) -> None:
    assert is_allowed(host, SECTION.allowed_hosts) is allowed


def test_photo_of_an_allowed_host_is_fetched() -> None:
    client, requested = client_with([httpx.Response(200, content=b"photo")])
    assert fetch(URL, SECTION, client=client) == b"photo"
    assert requested == [URL]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://img.example.com/a.jpg", "http://img.example.com/a.jpg: only https:// is fetched; change the catalogue"),
        ("https://evil.org/a.jpg", "https://evil.org/a.jpg: host 'evil.org' is not allowed; add it to pack.allowed_hosts"),
        ("https://img.example.com@evil.org/", "https://img.example.com@evil.org/: host 'evil.org' is not allowed; add it to pack.allowed_hosts"),
        ("HTTPS://127.0.0.1/a.jpg", "HTTPS://127.0.0.1/a.jpg: host '127.0.0.1' is not allowed; add it to pack.allowed_hosts"),
    ],
)  # fmt: skip
def test_no_request_is_sent_to_another_host(uri: str, message: str) -> None:
    assert refusal(uri) == ("not_allowed_host", message, [])


def test_redirect_is_followed_to_allowed_hosts_only() -> None:
    allowed = httpx.Response(302, headers={"Location": "https://a.cdn.net/b.jpg"})
    client, requested = client_with([allowed, httpx.Response(200, content=b"photo")])
    assert fetch(URL, SECTION, client=client) == b"photo"
    assert requested == [URL, "https://a.cdn.net/b.jpg"]
    forbidden = httpx.Response(302, headers={"Location": "https://evil.org/b.jpg"})
    message = (
        "https://evil.org/b.jpg (a redirect): host 'evil.org' is not allowed; add it to pack.allowed_hosts"
    )
    assert refusal(URL, forbidden) == ("not_allowed_host", message, [URL])
    unencrypted = httpx.Response(302, headers={"Location": "http://a.cdn.net/b.jpg"})
    assert refusal(URL, unencrypted)[0] == "not_allowed_host"


def test_redirect_loop_ends_after_five_redirects() -> None:
    redirects = [httpx.Response(302, headers={"Location": "/a.jpg"}) for _ in range(6)]
    reason, message, requested = refusal(URL, *redirects)
    assert (reason, message) == ("unreachable", f"{URL}: more than 5 redirects; name the photo itself")
    assert len(requested) == 6


def test_busy_host_gets_three_requests_with_delays() -> None:
    delays: list[float] = []
    client, requested = client_with(
        [httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(200, content=b"photo")]
    )
    assert fetch(URL, SECTION, client=client, sleep=delays.append) == b"photo"
    assert (len(requested), delays) == (3, [0.5, 2.0])


@pytest.mark.parametrize(
    ("response", "cause"),
    [
        (httpx.Response(500), "status 500"),
        (httpx.Response(429), "status 429"),
        (httpx.ReadTimeout("slow"), "slow"),
    ],
)
def test_host_that_stays_busy_is_unreachable(response: httpx.Response | Exception, cause: str) -> None:
    reason, message, requested = refusal(URL, response, response, response)
    assert (reason, message) == ("unreachable", f"{URL}: no answer in 3 tries ({cause}); try again later")
    assert len(requested) == 3


def test_rejected_request_is_not_retried() -> None:
    message = f"{URL}: refused with status 403; check the address"
    assert refusal(URL, httpx.Response(403)) == ("unreachable", message, [URL])
    client, _ = client_with([httpx.Response(404)])
    with pytest.raises(MissingError) as caught:
        fetch(URL, SECTION, client=client)
    assert str(caught.value) == f"{URL}: no such file (status 404); check the address"


def test_download_stops_at_the_size_limit() -> None:
    read: list[int] = []

    def body() -> Iterator[bytes]:
        for _ in range(100):
            read.append(600)
            yield b"x" * 600

    message = f"{URL}: more than 1000 bytes; make it smaller, or raise pack.max_photo_megabytes"
    assert refusal(URL, httpx.Response(200, content=body())) == ("too_many_bytes", message, [URL])
    assert len(read) == 2
    declared = httpx.Response(200, headers={"Content-Length": "1001"}, content=b"")
    assert refusal(URL, declared)[0] == "too_many_bytes"


def test_stored_photo_is_read_within_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 1000)
    assert fetch(f"{tmp_path}/a.jpg", SECTION) == b"x" * 1000
    (tmp_path / "a.jpg").write_bytes(b"x" * 1001)
    assert refusal(f"{tmp_path}/a.jpg")[0] == "too_many_bytes"


def test_missing_stored_photo_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        fetch(f"{tmp_path}/a.jpg", SECTION)


@pytest.mark.parametrize("location", ["http://[", "https://img.example.com:x/"])
def test_redirect_to_no_address_is_refused_in_one_line(location: str) -> None:
    reason, message, _ = refusal(URL, *[httpx.Response(302, headers={"Location": location})] * 3)
    assert reason in ("bad_image", "unreachable")
    assert message.startswith(f"{URL}: ")
