"""The bytes of a photo at a path, in a bucket, or at an allowed `https://` host.

A catalogue is untrusted input. Photos are fetched only from the hosts in `pack.allowed_hosts`, at most
`pack.max_photo_megabytes` each, and within `pack.fetch_timeout_s` per attempt.
"""

from __future__ import annotations

import functools
import stat
import time
from collections.abc import Callable
from urllib.parse import urljoin

import httpx

from raysys import storage
from raysys.config.schema import PackConfig
from raysys.errors import InputError, MissingError, StorageError, UnreadableImage
from raysys.pack.photo_uris import UNREACHABLE, fault_of, is_on_the_web

_RETRY_DELAYS_S = (0.5, 2.0)
_MAX_REDIRECTS = 5
_RETRYABLE_STATUSES = {429, 500, 502, 503, 504}
_MISSING_STATUSES = {404, 410}


def fetch(
    uri: str,
    section: PackConfig,
    *,
    client: httpx.Client | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> bytes:
    """The bytes of the file.

    Raises: MissingError if it does not exist; UnreadableImage with reason `bad_image` (no file can be there),
    `not_allowed_host`, `too_many_bytes`, or `unreachable`, which may pass with time.
    """
    if fault := fault_of(uri):
        raise UnreadableImage(f"{uri}: {fault}", "bad_image")
    if not is_on_the_web(uri):
        return _read_stored(uri, section)
    for delay_s in (*_RETRY_DELAYS_S, None):  # None: the last attempt
        try:
            return _download(uri, section, client or _shared_client())
        except (httpx.RequestError, _RetryableStatus) as error:
            if delay_s is None:
                attempts = len(_RETRY_DELAYS_S) + 1
                message = f"{uri}: no answer in {attempts} tries ({_one_line(error)}); try again later"
                raise UnreadableImage(message, UNREACHABLE) from error
            sleep(delay_s)
        except (ValueError, httpx.InvalidURL) as error:  # an answer with an invalid Location or length
            message = f"{uri}: its host's answer cannot be used ({_one_line(error)}); check the address"
            raise UnreadableImage(message, UNREACHABLE) from error
    raise AssertionError("the last attempt returns or raises")


def is_allowed(host: str, allowed_hosts: tuple[str, ...]) -> bool:
    """Whether a host equals an allowed name, or lies below an allowed domain (written with a leading dot)."""
    host = host.lower().rstrip(".")
    allowed = [name.lower() for name in allowed_hosts]
    return any(host.endswith(name) if name.startswith(".") else host == name for name in allowed)


def require_size(num_bytes: int, name: str, section: PackConfig) -> None:
    """Raise UnreadableImage for a photo of more than `pack.max_photo_megabytes`."""
    limit = int(section.max_photo_megabytes * 1e6)
    if num_bytes > limit:
        message = f"{name}: more than {limit} bytes; make it smaller, or raise pack.max_photo_megabytes"
        raise UnreadableImage(message, "too_many_bytes")


class _RetryableStatus(Exception):
    """The host answered with a status that may pass."""


def _read_stored(uri: str, section: PackConfig) -> bytes:
    try:
        if storage.is_local(uri):
            _require_file(uri)
        with storage.open_input(uri) as stream:
            require_size(stream.size(), uri, section)
            return bytes(stream.read())
    except (MissingError, UnreadableImage):
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        raise MissingError(f"{uri}: no such file; check the path") from error
    except (InputError, StorageError, OSError, ValueError) as error:
        raise UnreadableImage(f"{uri}: cannot be read ({_one_line(error)})", UNREACHABLE) from error


def _require_file(uri: str) -> None:
    """Check a local path before it is opened: opening a named pipe waits for its writer, without an end."""
    mode = storage.local_path(uri).stat().st_mode
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a device, pipe or socket"
        raise UnreadableImage(f"{uri}: {kind}, not a file; name a photo", "bad_image")


def _download(uri: str, section: PackConfig, client: httpx.Client) -> bytes:
    address = uri
    for _ in range(_MAX_REDIRECTS + 1):
        _require_allowed(address, uri, section)
        with client.stream(
            "GET", address, headers={"Accept-Encoding": "identity"}, timeout=section.fetch_timeout_s
        ) as response:
            if response.has_redirect_location:
                address = urljoin(address, response.headers["Location"])
                continue
            _require_ok(uri, response.status_code)
            return _read_body(uri, response, section)
    raise UnreadableImage(f"{uri}: more than {_MAX_REDIRECTS} redirects; name the photo itself", UNREACHABLE)


def _require_allowed(address: str, uri: str, section: PackConfig) -> None:
    try:
        url = httpx.URL(address)
    except httpx.InvalidURL as error:
        raise UnreadableImage(f"{uri}: not a URL ({error}); correct the cell", "bad_image") from error
    via = "" if address == uri else " (a redirect)"
    if url.scheme != "https":
        message = f"{address}{via}: only https:// is fetched; change the catalogue"
    elif not is_allowed(url.raw_host.decode(), section.allowed_hosts):
        message = f"{address}{via}: host '{url.host}' is not allowed; add it to pack.allowed_hosts"
    else:
        return
    raise UnreadableImage(message, "not_allowed_host")


def _require_ok(uri: str, status: int) -> None:
    if status in _RETRYABLE_STATUSES:
        raise _RetryableStatus(f"status {status}")
    if status in _MISSING_STATUSES:
        raise MissingError(f"{uri}: no such file (status {status}); check the address")
    if status != httpx.codes.OK:
        raise UnreadableImage(f"{uri}: refused with status {status}; check the address", UNREACHABLE)


def _read_body(uri: str, response: httpx.Response, section: PackConfig) -> bytes:
    require_size(int(response.headers.get("Content-Length", 0)), uri, section)
    data, deadline = bytearray(), time.monotonic() + section.fetch_timeout_s
    for chunk in response.iter_bytes():
        data += chunk
        require_size(len(data), uri, section)
        if time.monotonic() > deadline:  # a slow trickle of bytes never reaches the read timeout of httpx
            raise httpx.ReadTimeout(f"incomplete after {section.fetch_timeout_s:g} s")
    return bytes(data)


@functools.cache
def _shared_client() -> httpx.Client:
    """One client per process: photos share its connections and certificates. It is thread-safe."""
    return httpx.Client(follow_redirects=False)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
