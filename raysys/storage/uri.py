"""Where a URI lies: a path, or a bucket and a key with the filesystem that reaches them.

A key is meant as it is written: `s3://shop/my cup #2.jpg` is a place, and nothing is percent-encoded, so
that a listed name joined to its folder is always the URI of the file.
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
    """The filesystem of a URI and the path inside it; local paths are made absolute."""
    if "://" not in uri:
        return pafs.LocalFileSystem(), os.path.abspath(os.path.expanduser(uri))
    scheme, _, place = uri.partition("://")
    bucket, _, key = place.partition("/")
    try:
        if scheme == "file":
            return _local(uri)
        filesystem, root = _store(scheme, bucket, _s3_address() if scheme == "s3" else "")
    except (pa.ArrowInvalid, OSError) as error:
        raise InputError(
            f"{uri}: not a place that can be opened ({error}); use a path, s3:// or gs://"
        ) from error
    return filesystem, join(root, key) if key else root


def is_local(uri: str) -> bool:
    """Whether the URI lies on a disk of this machine."""
    return "://" not in uri or uri.startswith("file://")


def absolute(uri: str) -> str:
    """The URI as every process understands it: a local path from the root of the disk on."""
    return str(local_path(uri)) if is_local(uri) else uri


def local_path(uri: str) -> Path:
    """The local path of a local URI."""
    if not is_local(uri):
        raise InputError(f"{uri}: a local path is needed here")
    return Path(resolve(uri)[1])


def join(uri: str, *parts: str) -> str:
    """`uri/part/part`, without doubling slashes."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts)])


@functools.lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, query: str) -> tuple[pafs.FileSystem, str]:
    # Kept: a new filesystem has a new connection pool, and asks for the region of its bucket.
    found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(f"{scheme}://{bucket}{query}")
    return found


def _local(uri: str) -> tuple[pafs.FileSystem, str]:
    found: tuple[pafs.FileSystem, str] = pafs.FileSystem.from_uri(uri)
    return found


def _s3_address() -> str:
    """The endpoint and the region of the environment; without a region pyarrow asks Amazon."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint and not region:
        region = "us-east-1"  # a store of one's own has no regions to ask Amazon for
    said = {"endpoint_override": endpoint, "region": region}
    query = urlencode({name: value for name, value in said.items() if value})
    return f"?{query}" if query else ""
