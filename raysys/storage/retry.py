"""What is tried again, how often, and what is said when it stays broken.

An object store answers 500 or 503, resets a connection and cuts an answer short as a matter of course.
The AWS client tries each of its requests anew for some six seconds; here the whole operation is done
again, which also covers what no client sees: an answer that is short without an error. A store that is
gone for good is given up after three quarters of a minute.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from raysys.errors import InputError, MissingError, RaysysError, StorageError
from raysys.storage.uri import is_local

T = TypeVar("T")
TRIES = 6
_FIRST_WAIT_S = 0.25  # doubled before each further try: 7.75 s of waiting in all
_REFUSED = (
    "ACCESS_DENIED",
    "INVALID_ACCESS_KEY_ID",
    "INVALID_CLIENT_TOKEN_ID",
    "SIGNATURE_DOES_NOT_MATCH",
    "EXPIRED_TOKEN",
    "UNRECOGNIZED_CLIENT",
    "MISSING_AUTHENTICATION_TOKEN",
    "NO_AWS_CREDENTIALS",
    "PERMISSION_DENIED",  # Google's
    "UNAUTHENTICATED",
    "HTTP status 401",
    "HTTP status 403",
    "PermissionDenied",
)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class CutShort(OSError):
    """An answer ended early, without an error."""


def with_retry(do: Callable[[], T], uri: str, doing: str) -> T:
    """What `do` returns, which is called again after an error that may pass; `doing` is `read`, `written`..

    `do` must be safe to repeat; a local disk is asked once.
    Raises: MissingError, InputError if access is denied, StorageError.
    """
    for tried in range(1, TRIES + 1):
        try:
            return do()
        except OSError as error:
            if tried == TRIES or is_local(uri) or not is_retryable(error):
                raise told(error, uri, doing, tried) from error
            pause(_FIRST_WAIT_S * 2 ** (tried - 1))
    raise AssertionError("unreachable")


def pause(seconds: float) -> None:
    """Wait between two tries."""
    time.sleep(seconds)


def is_retryable(error: OSError) -> bool:
    """Whether to try again: network errors have no errno of a disk, and a refusal stays one."""
    if isinstance(error, ConnectionError | TimeoutError | CutShort):
        return True
    return error.errno is None and not _is_missing(error) and not _is_refused(error)


def told(error: OSError, uri: str, doing: str, tries: int = 1) -> RaysysError:
    """The error of ours that says what went wrong at a URI, in one line."""
    reason = _reason(error)
    if _is_missing(error):
        missing = "no such bucket" if "NO_SUCH_BUCKET" in str(error) else "no such file"
        return MissingError(f"{uri}: {missing}; check the path")
    if _is_refused(error):
        return InputError(f"{uri}: access denied, it could not be {doing} ({reason}); check {_rights(uri)}")
    if is_full(error):
        return StorageError(f"{uri}: could not be {doing} ({reason}); free space there, or use another place")
    times = "" if tries == 1 else f" in {tries} tries"
    return StorageError(f"{uri}: could not be {doing}{times} ({reason}); check the place, then run again")


def is_full(error: OSError) -> bool:
    """Whether a disk, or a quota on it, is full."""
    return error.errno in _FULL


def _is_missing(error: OSError) -> bool:
    return isinstance(error, FileNotFoundError) or "NO_SUCH_BUCKET" in str(error)


def _is_refused(error: OSError) -> bool:
    return isinstance(error, PermissionError) or any(word in str(error) for word in _REFUSED)


def _rights(uri: str) -> str:
    if is_local(uri):
        return "its owner and mode"
    keys = "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY"
    return f"the credentials in the environment ({keys}) and the rights on the place"


def _reason(error: OSError) -> str:
    return " ".join((error.strerror or str(error)).split())[:300]
