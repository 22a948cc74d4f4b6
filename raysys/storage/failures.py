"""Kinds of errors of a disk or of pyarrow's clients: transient, missing, denied, full."""

from __future__ import annotations

import errno

from raysys.parallel import TimeLimitExceeded

_DENIED_WORDS = (
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
    "Could not create a OAuth2 access token",
    "HTTP status 401",
    "HTTP status 403",
    "PermissionDenied",
)
DENIED = (errno.EACCES, errno.EPERM)
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_PLACE = (errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EROFS, errno.ELOOP)


class TruncatedTransfer(OSError):
    """A response or an upload ended early, without an error."""


def is_retryable(error: OSError) -> bool:
    """Whether an error may be transient: not an error of a disk, a missing file or denied access."""
    if isinstance(error, TimeLimitExceeded):
        return False
    if isinstance(error, ConnectionError | TimeoutError | TruncatedTransfer):
        return True
    return error.errno is None and not is_missing(error) and not is_access_denied(error)


def is_full(error: OSError) -> bool:
    """Whether a disk or a quota is full."""
    return error.errno in DISK_FULL


def is_missing(error: OSError) -> bool:
    """Whether a file or a bucket does not exist."""
    return isinstance(error, FileNotFoundError) or "NO_SUCH_BUCKET" in str(error)


def is_access_denied(error: OSError) -> bool:
    """Whether a disk or a store refuses access, or there are no credentials."""
    return isinstance(error, PermissionError) or any(word in str(error) for word in _DENIED_WORDS)
