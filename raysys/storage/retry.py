"""How often an operation that failed is retried, and the error that is raised in the end.

Object stores regularly return 500 or 503, reset connections and end a response early. The AWS client
retries each request for about six seconds. Here the complete operation is repeated, which also covers what
the client does not notice: a short response without an error. With both, a store that fails after its first
contact (`uri`) is given up after about 45 seconds.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

from raysys.errors import DiskFull, InputError, MissingError, RaysysError, StorageError
from raysys.parallel import TimeLimitExceeded, call_within
from raysys.storage import limits
from raysys.storage.failures import (
    DENIED,
    DISK_FULL,
    NO_PLACE,
    is_access_denied,
    is_full,
    is_missing,
    is_retryable,
)
from raysys.storage.uri import is_local, local_path
from raysys.terminal import as_size

T = TypeVar("T")
_MAX_TRIES = 6
_FIRST_WAIT_S = 0.25  # doubled before each further try: 7.75 s in total


def with_retry(operation: Callable[[], T], uri: str, action: str) -> T:
    """Call `operation`, again after each transient error, and return its result.

    `operation` must be safe to repeat. On a local disk it is called once; otherwise in a thread, so that it
    has a time limit and Ctrl-C ends the wait. `action` completes the error message "could not be ..": `read`,
    `written`.
    Raises: MissingError, InputError if access is denied, StorageError.
    """
    for tries in range(1, _MAX_TRIES + 1):
        try:
            return operation() if is_local(uri) else _call_within_limit(operation, uri)
        except OSError as error:
            if tries == _MAX_TRIES or is_local(uri) or not is_retryable(error):
                raise as_storage_error(error, uri, action, tries) from error
            pause(_FIRST_WAIT_S * 2 ** (tries - 1))
    raise AssertionError("unreachable")


def _call_within_limit(operation: Callable[[], T], uri: str) -> T:
    return call_within(limits.current().operation_timeout_s, operation, uri)


def pause(seconds: float) -> None:
    """Wait between two tries."""
    time.sleep(seconds)


def as_storage_error(
    error: OSError, uri: str, action: str, tries: int = 1, needed_bytes: int | None = None
) -> RaysysError:
    """An `OSError` as an error of raysys with a one-line message that names the URI and the remedy.

    `needed_bytes` is the size of what did not fit on a full disk, if it is known.
    """
    reason = _reason(error)
    if is_missing(error):
        missing = "no such bucket" if "NO_SUCH_BUCKET" in str(error) else "no such file"
        return MissingError(f"{uri}: {missing}; check the path")
    if is_access_denied(error):
        return InputError(
            f"{uri}: access denied, it could not be {action} ({reason}); check {_access_hint(uri)}"
        )
    if error.errno in NO_PLACE:
        return InputError(f"{uri}: could not be {action} ({reason}); choose another place")
    if isinstance(error, TimeLimitExceeded):
        return StorageError(
            f"{uri}: could not be {action} ({reason}); "
            "check the network, or raise storage.operation_timeout_s"
        )
    if is_full(error):
        reason += _room(error, uri, needed_bytes)
        return DiskFull(f"{uri}: could not be {action} ({reason}); free space there, or use another place")
    times = "" if tries == 1 else f" in {tries} tries"
    return StorageError(f"{uri}: could not be {action}{times} ({reason}); check the location, then run again")


def unusable_place(error: BaseException) -> RaysysError | None:
    """An error of a local place that some library could not use, as one of raysys; None for other errors."""
    link: BaseException | None = error
    while link is not None and not isinstance(link, RaysysError):
        if isinstance(link, OSError) and link.errno in (*DISK_FULL, *NO_PLACE, *DENIED) and link.filename:
            return as_storage_error(link, os.fsdecode(link.filename), "used")
        if isinstance(link, OSError) and is_full(link):
            return DiskFull(
                f"a disk is full ({_reason(link)}); free space for root, for the temporary folder "
                f"{tempfile.gettempdir()}, or where the output goes"
            )
        link = getattr(link, "cause", None) or link.__cause__  # `cause`: of an error that crossed Ray
    return None


def free_bytes(uri: str) -> int:
    """The space that is free on the local disk of a path, which need not exist yet."""
    path = local_path(uri).absolute()
    return shutil.disk_usage(next(folder for folder in (path, *path.parents) if folder.exists())).free


def _room(error: OSError, uri: str, needed_bytes: int | None) -> str:
    """What was needed and what is free; empty if that is not the reason (a quota, too many files)."""
    if error.errno != errno.ENOSPC or not is_local(uri):
        return ""
    free = free_bytes(uri)
    if needed_bytes is None:
        return f": it needs more than the {as_size(free)} that are free"
    return f": it needs {as_size(needed_bytes)}, {as_size(free)} are free" if needed_bytes > free else ""


def _access_hint(uri: str) -> str:
    if is_local(uri):
        return "its owner and mode"
    keys = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    if uri.startswith(("gs://", "gcs://")):
        keys = "GOOGLE_APPLICATION_CREDENTIALS: a key file"
    return f"the credentials in the environment ({keys}) and the permissions of the bucket"


def _reason(error: OSError) -> str:
    return " ".join((error.strerror or str(error)).split())[:300]
