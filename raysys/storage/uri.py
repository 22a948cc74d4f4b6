"""From a URI to a filesystem and a path.

URIs are literal: `s3://shop/my cup #2.jpg` names exactly this key, and nothing is percent-encoded. So a
listed name joined to its folder is always the URI of the file.
"""

from __future__ import annotations

import functools
import itertools
import os
import sys
import time
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.fs as pafs

from raysys.errors import InputError, StorageError
from raysys.parallel import TimeLimitExceeded, call_within
from raysys.storage import limits
from raysys.storage.failures import is_retryable

_GCS_RETRY_S = 5


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI and the path in it; local paths become absolute.

    The first URI of a bucket waits for an answer of its store; an error is an answer, too.
    Raises: InputError if the URI cannot be opened, such as one with an unknown scheme; StorageError if its
    store does not answer.
    """
    if "\0" in uri:
        raise InputError(f"{uri!r}: a path cannot contain a NUL character; remove it")
    if "://" not in uri:
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(_encodable(uri)))
    scheme, _, location = uri.partition("://")
    bucket, _, key = location.partition("/")
    try:
        if scheme == "file":
            return _local(_encodable(uri))
        filesystem, root = _store(scheme, bucket, _query(scheme))
    except pa.ArrowInvalid as error:
        raise InputError(f"{uri}: cannot be opened ({error}); use a path, s3:// or gs://") from error
    except TimeLimitExceeded as error:
        raise StorageError(
            f"{uri}: the object store gave {error}; check the network, the address{_endpoint(scheme)} and "
            "the credentials in the environment, or raise storage.contact_timeout_s"
        ) from error
    except OSError as error:
        reason = " ".join(str(error).split())[:300]
        raise StorageError(
            f"{uri}: cannot be reached ({reason}); check the network and the location, then run again"
        ) from error
    return filesystem, join(root, key) if key else root


def _encodable(path: str) -> str:
    """The path; an InputError if the locale has no bytes for it."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path}: the locale has only {sys.getfilesystemencoding()} file names; set LC_ALL=C.UTF-8"
        ) from error
    return path


def is_local(uri: str) -> bool:
    """Whether the URI is a path on this machine."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """The URI independent of the working directory: local paths become absolute."""
    return str(local_path(uri)) if is_local(uri) else uri


def local_path(uri: str) -> Path:
    """The path of a local URI.

    Raises: InputError if the URI is not local.
    """
    if not is_local(uri):
        raise InputError(f"{uri}: a local path is required here")
    return Path(resolve(uri)[1])


def join(uri: str, *parts: str) -> str:
    """`uri/part/part`, without double slashes."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


@functools.lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, query: str) -> tuple[pafs.FileSystem, str]:
    # Cached: a new filesystem opens a new connection pool and requests the region of its bucket.
    timeout_s = limits.current().contact_timeout_s
    return call_within(timeout_s, lambda: _contact(scheme, bucket, query, timeout_s), f"{scheme}://{bucket}")


def _contact(scheme: str, bucket: str, query: str, timeout_s: float) -> tuple[pafs.FileSystem, str]:
    """The filesystem, once its store has answered; transient errors are retried for half of the time."""
    started = time.monotonic()
    for tries in itertools.count():
        try:
            store: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(f"{scheme}://{bucket}{query}")
            _request_info(*store)
            return store
        except OSError as error:
            if not is_retryable(error) or time.monotonic() - started > timeout_s / 2:
                raise
            time.sleep(0.25 * 2**tries)
    raise AssertionError("unreachable")


def _request_info(filesystem: pafs.FileSystem, bucket: str) -> None:
    """Ask for the bucket. Raises: OSError for a transient error; any other answer will do."""
    try:
        filesystem.get_file_info(bucket)
    except OSError as error:
        if is_retryable(error):
            raise


def _local(uri: str) -> tuple[pafs.FileSystem, str]:
    local: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(uri)
    return local


def _query(scheme: str) -> str:
    """Options of the filesystem as a URI query.

    For S3: endpoint and region from the environment; without a region pyarrow requests it. For Google Cloud
    Storage: its client retries for 15 minutes by itself, here `with_retry` does.
    """
    if scheme in ("gs", "gcs"):
        return f"?retry_limit_seconds={_GCS_RETRY_S}"
    if scheme != "s3":
        return ""
    endpoint = _s3_endpoint()
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint and not region:
        region = "us-east-1"  # other S3-compatible stores have no regions
    options = {"endpoint_override": endpoint, "region": region}
    query = urlencode({name: value for name, value in options.items() if value})
    return f"?{query}" if query else ""


def _s3_endpoint() -> str | None:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


def _endpoint(scheme: str) -> str:
    """` (<endpoint of the environment>)` for messages; empty for the store's own address."""
    endpoint = _s3_endpoint() if scheme == "s3" else None
    return f" AWS_ENDPOINT_URL={endpoint}" if endpoint else ""
