"""Which storage errors are retried, how often, and the error that is raised in the end.

Object stores regularly return 500 or 503, reset connections and end a response early. The AWS client
retries each request for about six seconds. Here the complete operation is repeated, which also covers what
the client does not notice: a short response without an error. With both, an unreachable store is given up
after about 45 seconds.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from raysys.errors import InputError, MissingError, RaysysError, StorageError
from raysys.storage.uri import is_local

T = TypeVar("T")
_MAX_TRIES = 6
_FIRST_WAIT_S = 0.25  # doubled before each further try: 7.75 s in total
_ACCESS_DENIED = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "EXPIRED_TOKEN",
    "UNRECOGNIZED_CLIENT",
    "MISSING_AUTHENTICATION_TOKEN",
    "NO_AWS_CREDENTIALS",
    "PERMISSION_DENIED",  # Google Cloud Storage
    "UNAUTHENTICATED",
    "HTTP status 401",
    "HTTP status 403",
    "PermissionDenied",
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class TruncatedTransfer(OSError):
    """A response or an upload ended early, without an error."""


def with_retry(operation: Callable[[], T], uri: str, action: str) -> T:
    """Call `operation`, again after each transient error, and return its result.

    `operation` must be safe to repeat. On a local disk it is called once. `action` completes the error
    message "could not be ..": `read`, `written`.
    Raises: MissingError, InputError if access is denied, StorageError.
    """
    for tries in range(1, _MAX_TRIES + 1):
        try:
            return operation()
        except OSError as error:
            if tries == _MAX_TRIES or is_local(uri) or not is_retryable(error):
                raise as_storage_error(error, uri, action, tries) from error
            pause(_FIRST_WAIT_S * 2 ** (tries - 1))
    raise AssertionError("unreachable")


def pause(seconds: float) -> None:
    """Wait between two tries."""
    time.sleep(seconds)


def is_retryable(error: OSError) -> bool:
    """Whether an error may be transient: not an error of a disk, a missing file or denied access."""
    if isinstance(error, ConnectionError | TimeoutError | TruncatedTransfer):
        return True
    return error.errno is None and not _is_missing(error) and not _is_access_denied(error)


def as_storage_error(error: OSError, uri: str, action: str, tries: int = 1) -> RaysysError:
    """An `OSError` as an error of raysys with a one-line message that names the URI and the remedy."""
    reason = _reason(error)
    if _is_missing(error):
        missing = "no such bucket" if "NO_SUCH_BUCKET" in str(error) else "no such file"
        return MissingError(f"{uri}: {missing}; check the path")
    if _is_access_denied(error):
        return InputError(
            f"{uri}: access denied, it could not be {action} ({reason}); check {_access_hint(uri)}"
        )
    if is_full(error):
        return StorageError(
            f"{uri}: could not be {action} ({reason}); free space there, or use another place"
        )
    times = "" if tries == 1 else f" in {tries} tries"
    return StorageError(f"{uri}: could not be {action}{times} ({reason}); check the location, then run again")


def is_full(error: OSError) -> bool:
    """Whether a disk or a quota is full."""
    return error.errno in _DISK_FULL


def _is_missing(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError) or "NO_SUCH_BUCKET" in str(error)


def _is_access_denied(error: OSError) -> bool:
    return isinstance(error, PermissionError) or any(word in str(error) for word in _ACCESS_DENIED)


def _access_hint(uri: str) -> str:
    if is_local(uri):
        return "its owner and mode"
    keys = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    return f"the credentials in the environment ({keys}) and the permissions of the bucket"


def _reason(error: OSError) -> str:
    return " ".join((error.strerror or str(error)).split())[:300]
