"""The bytes of a photo, wherever its reference points: a disk, a bucket, or an allowed host.

A catalogue is other people's text. What it names is fetched over the network only from hosts that the
configuration names, never more than `pack.max_photo_megabytes` of it, and never for ever.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from urllib.parse import urljoin

import httpx

from raysys import storage
from raysys.config.schema import PackConfig
from raysys.errors import InputError, MissingError, StorageError, UnreadableImage

_PAUSES_S = (0.5, 2.0)  # before the second and the third try
_MAX_REDIRECTS = 5
_BUSY = {429, 500, 502, 503, 504}
_GONE = {404, 410}


def fetch(
    uri: str,
    section: PackConfig,
    *,
    client: httpx.Client | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """The whole file.

    Raises: MissingError if there is none; UnreadableImage with reason `not_allowed_host`,
    `too_many_bytes` or `unreachable`.
    """
    if not uri.lower().startswith(("http://", "https://")):
        return _read_stored(uri, section)
    for pause_s in (*_PAUSES_S, None):  # None: the last try
        try:
            return _download(uri, section, client or _shared_client())
        except (httpx.RequestError, _BusyHost) as error:
            if pause_s is None:
                tries = len(_PAUSES_S) + 1
                message = f"{uri}: no answer in {tries} tries ({_one_line(error)}); try again later"
                raise UnreadableImage(message, "unreachable") from error
            sleep(pause_s)
    raise AssertionError("the last try returns or raises")


def is_allowed(host: str, allowed_hosts: tuple[str, ...]) -> bool:
    """Whether a host is named: itself, or as a part of a domain that is named with a dot in front."""
    host = host.lower().rstrip(".")
    names = [name.lower() for name in allowed_hosts]
    return any(host.endswith(name) if name.startswith(".") else host == name for name in names)


def require_size(num_bytes: int, what: str, section: PackConfig) -> None:
    """Raise UnreadableImage for a photo of more than `pack.max_photo_megabytes`."""
    limit = int(section.max_photo_megabytes * 1e6)
    if num_bytes > limit:
        message = f"{what}: more than {limit} bytes; make it smaller, or raise pack.max_photo_megabytes"
        raise UnreadableImage(message, "too_many_bytes")


class _BusyHost(Exception):
    """The host asks to come again."""


def _read_stored(uri: str, section: PackConfig) -> bytes:
    try:
        with storage.open_input(uri) as stream:
            require_size(stream.size(), uri, section)
            return bytes(stream.read())
    except (MissingError, UnreadableImage):
        raise
    except (InputError, StorageError, OSError, ValueError) as error:
        raise UnreadableImage(f"{uri}: cannot be read ({_one_line(error)})", "unreachable") from error


def _download(uri: str, section: PackConfig, client: httpx.Client) -> bytes:
    address = uri
    for _ in range(_MAX_REDIRECTS + 1):
        _require_allowed(address, uri, section)
        with client.stream(
            "GET", address, headers={"Accept-Encoding": "identity"}, timeout=section.fetch_timeout_s
        ) as answer:
            if answer.has_redirect_location:
                address = urljoin(address, answer.headers["Location"])
                continue
            _require_ok(uri, answer.status_code)
            return _read_body(uri, answer, section)
    raise UnreadableImage(
        f"{uri}: more than {_MAX_REDIRECTS} redirects; name the photo itself", "unreachable"
    )


def _require_allowed(address: str, uri: str, section: PackConfig) -> None:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise UnreadableImage(f"{uri}: not a URL ({error})", "unreachable") from error
    via = "" if address == uri else " (a redirect)"
    if url.scheme != "https":
        message = f"{address}{via}: only https:// is fetched; change the catalogue"
    elif not is_allowed(url.raw_host.decode(), section.allowed_hosts):
        message = f"{address}{via}: host '{url.host}' is not allowed; add it to pack.allowed_hosts"
    else:
        return
    raise UnreadableImage(message, "not_allowed_host")


def _require_ok(uri: str, status: int) -> None:
    if status in _BUSY:
        raise _BusyHost(f"status {status}")
    if status in _GONE:
        raise MissingError(f"{uri}: no such file (status {status}); check the address")
    if status != httpx.codes.OK:
        raise UnreadableImage(f"{uri}: refused with status {status}; check the address", "unreachable")


def _read_body(uri: str, answer: httpx.Response, section: PackConfig) -> bytes:
    require_size(int(answer.headers.get("Content-Length", 0)), uri, section)
    data, until = bytearray(), time.monotonic() + section.fetch_timeout_s
    for piece in answer.iter_bytes():
        data += piece
        require_size(len(data), uri, section)
        if time.monotonic() > until:  # a drop now and then never runs into the timeout of a read
            raise httpx.ReadTimeout(f"not whole after {section.fetch_timeout_s:g} s")
    return bytes(data)


@functools.cache
def _shared_client() -> httpx.Client:
    """One a process: a connection and its certificates are for many photos. It is safe among threads."""
    return httpx.Client(follow_redirects=False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
