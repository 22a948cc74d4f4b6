"""What a catalogue names is fetched only from where it may be, and never without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from raysys.config.schema import PackConfig
from raysys.errors import MissingError, UnreadableImage
from raysys.pack.fetch import fetch, is_allowed

URL = "https://img.example.com/a.jpg"
SECTION = PackConfig(allowed_hosts=("img.example.com", ".cdn.net"), max_photo_megabytes=0.001)


def answering(answers: Sequence[httpx.Response | Exception]) -> tuple[httpx.Client, list[str]]:
    """A client that gets these answers in turn, and what it asked for."""
    asked: list[str] = []
    left = iter(answers)

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        given = next(left)
        if isinstance(given, Exception):
            raise given
        return given

    return httpx.Client(transport=httpx.MockTransport(answer)), asked


def refusal(uri: str, *answers: httpx.Response | Exception) -> tuple[str, str, list[str]]:
    """Reason, message and addresses asked for, of a photo that is refused."""
    client, asked = answering(answers)
    with pytest.raises(UnreadableImage) as caught:
        fetch(uri, SECTION, client=client, sleep=lambda _: None)
    return caught.value.reason, str(caught.value), asked


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
def test_host_is_allowed_by_its_whole_name_or_its_domain(host: str, allowed: bool) -> None:
    assert is_allowed(host, SECTION.allowed_hosts) is allowed


def test_photo_of_an_allowed_host_is_fetched() -> None:
    client, asked = answering([httpx.Response(200, content=b"photo")])
    assert fetch(URL, SECTION, client=client) == b"photo"
    assert asked == [URL]


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://img.example.com/a.jpg", "http://img.example.com/a.jpg: only https:// is fetched; change the catalogue"),
        ("https://evil.org/a.jpg", "https://evil.org/a.jpg: host 'evil.org' is not allowed; add it to pack.allowed_hosts"),
        ("https://img.example.com@evil.org/", "https://img.example.com@evil.org/: host 'evil.org' is not allowed; add it to pack.allowed_hosts"),
        ("HTTPS://127.0.0.1/a.jpg", "HTTPS://127.0.0.1/a.jpg: host '127.0.0.1' is not allowed; add it to pack.allowed_hosts"),
    ],
)  # fmt: skip
def test_other_host_is_never_asked(uri: str, message: str) -> None:
    assert refusal(uri) == ("not_allowed_host", message, [])


def test_redirect_leads_to_allowed_hosts_only() -> None:
    there = httpx.Response(302, headers={"Location": "https://a.cdn.net/b.jpg"})
    client, asked = answering([there, httpx.Response(200, content=b"photo")])
    assert fetch(URL, SECTION, client=client) == b"photo"
    assert asked == [URL, "https://a.cdn.net/b.jpg"]
    away = httpx.Response(302, headers={"Location": "https://evil.org/b.jpg"})
    message = (
        "https://evil.org/b.jpg (a redirect): host 'evil.org' is not allowed; add it to pack.allowed_hosts"
    )
    assert refusal(URL, away) == ("not_allowed_host", message, [URL])
    plain = httpx.Response(302, headers={"Location": "http://a.cdn.net/b.jpg"})
    assert refusal(URL, plain)[0] == "not_allowed_host"


def test_circle_of_redirects_ends() -> None:
    circle = [httpx.Response(302, headers={"Location": "/a.jpg"}) for _ in range(6)]
    reason, message, asked = refusal(URL, *circle)
    assert (reason, message) == ("unreachable", f"{URL}: more than 5 redirects; name the photo itself")
    assert len(asked) == 6


def test_busy_host_is_asked_three_times_with_pauses() -> None:
    pauses: list[float] = []
    client, asked = answering(
        [httpx.Response(503), httpx.ConnectError("refused"), httpx.Response(200, content=b"photo")]
    )
    assert fetch(URL, SECTION, client=client, sleep=pauses.append) == b"photo"
    assert (len(asked), pauses) == (3, [0.5, 2.0])


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.Response(500), "status 500"),
        (httpx.Response(429), "status 429"),
        (httpx.ReadTimeout("slow"), "slow"),
    ],
)
def test_host_that_stays_busy_is_unreachable(answer: httpx.Response | Exception, said: str) -> None:
    reason, message, asked = refusal(URL, answer, answer, answer)
    assert (reason, message) == ("unreachable", f"{URL}: no answer in 3 tries ({said}); try again later")
    assert len(asked) == 3


def test_refusal_of_the_host_is_not_asked_again() -> None:
    message = f"{URL}: refused with status 403; check the address"
    assert refusal(URL, httpx.Response(403)) == ("unreachable", message, [URL])
    client, _ = answering([httpx.Response(404)])
    with pytest.raises(MissingError) as caught:
        fetch(URL, SECTION, client=client)
    assert str(caught.value) == f"{URL}: no such file (status 404); check the address"


def test_no_more_than_the_limit_is_read() -> None:
    read: list[int] = []

    def body() -> Iterator[bytes]:
        for _ in range(100):
            read.append(600)
            yield b"x" * 600

    message = f"{URL}: more than 1000 bytes; make it smaller, or raise pack.max_photo_megabytes"
    assert refusal(URL, httpx.Response(200, content=body())) == ("too_many_bytes", message, [URL])
    assert len(read) == 2
    honest = httpx.Response(200, headers={"Content-Length": "1001"}, content=b"")
    assert refusal(URL, honest)[0] == "too_many_bytes"


def test_stored_photo_is_read_within_the_limit(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x" * 1000)
    assert fetch(f"{tmp_path}/a.jpg", SECTION) == b"x" * 1000
    (tmp_path / "a.jpg").write_bytes(b"x" * 1001)
    assert refusal(f"{tmp_path}/a.jpg")[0] == "too_many_bytes"


def test_missing_stored_photo_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no such file"):
        fetch(f"{tmp_path}/a.jpg", SECTION)


@pytest.mark.parametrize(
    "name", [lambda folder: folder, lambda _: "ftp://example.com/a.jpg"], ids=["folder", "ftp"]
)
def test_what_cannot_be_read_is_unreachable(tmp_path: Path, name: Callable[[str], str]) -> None:
    uri = name(str(tmp_path))
    reason, message, _ = refusal(uri)
    assert reason == "unreachable"
    assert message.startswith(f"{uri}: cannot be read (")
