"""From a URI to a filesystem and a path.

URIs are literal: `s3://shop/my cup #2.jpg` names exactly this key, and nothing is percent-encoded. So a
listed name joined to its folder is always the URI of the file.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.fs as pafs

from raysys.errors import InputError


def resolve(uri: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a URI and the path in it; local paths become absolute.

    Raises: InputError if the URI cannot be opened, such as one with an unknown scheme.
    """
    if "://" not in uri:
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(uri))
    scheme, _, location = uri.partition("://")
    bucket, _, key = location.partition("/")
    try:
        if scheme == "file":
            return _local(uri)
        filesystem, root = _store(scheme, bucket, _s3_query() if scheme == "s3" else "")
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(f"{uri}: cannot be opened ({error}); use a path, s3:// or gs://") from error
    return filesystem, join(root, key) if key else root


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
    store: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(f"{scheme}://{bucket}{query}")
    return store


def _local(uri: str) -> tuple[pafs.FileSystem, str]:
    local: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(uri)
    return local


def _s3_query() -> str:
    """Endpoint and region from the environment, as a URI query; without a region pyarrow requests it."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint and not region:
        region = "us-east-1"  # other S3-compatible stores have no regions
    options = {"endpoint_override": endpoint, "region": region}
    query = urlencode({name: value for name, value in options.items() if value})
    return f"?{query}" if query else ""
