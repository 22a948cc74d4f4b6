"""All errors of raysys, each with its exit status and its HTTP status.

Every message is one line in four parts: where, what, got, what to do. A command prints it to stderr and
exits with `exit_status`; the server responds `{"error": {"code", "message"}}` with `http_status`.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Iterable, Iterator

from raysys.terminal import printable

REASON_LENGTH = 300  # characters of an error of other software that a message quotes
# Libraries report it in their own words. cuBLAS cannot create a handle without memory for its workspace.
_OUT_OF_MEMORY = re.compile(
    r"out of memory|CU\w+_STATUS_ALLOC_FAILED|CUBLAS_STATUS_NOT_INITIALIZED when calling `?cublasCreate"
    r"|Failed to CUDA \w*alloc|can't allocate memory",
    re.IGNORECASE,
)


class RaysysError(Exception):
    """The work failed. Subclasses narrow it; catch this one at a process edge only."""

    exit_status = 1
    http_status = 500
    code = "internal"


class InputError(RaysysError):
    """The user's input is wrong: a file, a column, a value, a port."""

    exit_status = 2
    http_status = 422
    code = "invalid_input"


class ConfigError(InputError):
    """The configuration does not fit the schema."""

    code = "invalid_config"


class MissingError(InputError):
    """Something named does not exist: a file, an artifact, an item."""

    http_status = 404
    code = "not_found"


class MissingArtifact(MissingError):
    """An artifact that an earlier stage makes does not exist yet."""


class SpaceMismatch(InputError):
    """Vectors of two embedding spaces were about to be compared (law 1)."""

    http_status = 409
    code = "space_mismatch"


class NoEncoder(InputError):
    """A photo or a text was to be embedded, but the served vectors are of no EncoderBundle."""

    http_status = 409
    code = "no_encoder"


class UnreadableImage(InputError):
    """Bytes that cannot be decoded as a photo; `reason` is a short word for ledgers."""

    http_status = 415
    code = "unreadable_image"

    def __init__(self, message: str, reason: str = "damaged") -> None:
        super().__init__(message)
        self.reason = reason


class TooLarge(InputError):
    """More bytes, pixels or results than this service accepts."""

    http_status = 413
    code = "too_large"


class Unauthorized(InputError):
    """A request without a bearer token, or with an unknown one."""

    http_status = 401
    code = "unauthorized"


class Forbidden(InputError):
    """The scopes of the token do not include that of the route."""

    http_status = 403
    code = "forbidden"


class DamagedData(RaysysError):
    """Stored data differs from its manifest, or too much of it is bad."""

    code = "damaged_data"


class ParityFailed(RaysysError):
    """A photo has another vector in training or embedding than in the service."""

    code = "parity_failed"


class TrainingDiverged(RaysysError):
    """The loss or a gradient is not finite."""

    code = "training_diverged"


class OutOfMemory(RaysysError):
    """A device or a process has too little memory for its work."""

    code = "out_of_memory"


class Stopped(RaysysError):
    """A signal stopped the work; what was done so far is kept."""

    code = "stopped"

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message, signal_number)
        self.exit_status = 128 + signal_number  # the shell's convention: 130 for SIGINT, 143 for SIGTERM

    def __str__(self) -> str:
        return str(self.args[0])


class StorageError(RaysysError):
    """A disk or an object store failed, also after retries."""

    http_status = 503
    code = "storage_failed"


class DiskFull(StorageError):
    """A disk or a quota has no space left."""

    code = "disk_full"


class StoreFailed(RaysysError):
    """The database of the change log failed; nothing of the request was acknowledged."""

    http_status = 503
    code = "store_failed"


class Busy(RaysysError):
    """Another process does the same work in the same place."""

    http_status = 409
    code = "busy"


class TrackingRefused(InputError):
    """Weights & Biases refuses the key, the project or the settings of a run."""

    code = "tracking_refused"


class TrackingError(RaysysError):
    """Weights & Biases cannot be reached."""

    code = "tracking_failed"


class GenerationGone(RaysysError):
    """A replica has no pair of this generation (any more); the active one can be used instead."""

    http_status = 503
    code = "generation_gone"


class SwitchRefused(RaysysError):
    """The next pair of encoder and index failed its checks; the active one serves on."""

    http_status = 409
    code = "switch_refused"


class ClusterError(RaysysError):
    """Ray, a port or a remote job failed."""

    http_status = 503
    code = "unavailable"


class ServiceUnavailable(RaysysError):
    """The HTTP service cannot be reached, does not answer in time, or is overloaded."""

    http_status = 503
    code = "overloaded"


class DeadlineExceeded(RaysysError):
    """A request had no answer before its deadline; what had not begun was skipped."""

    http_status = 504
    code = "deadline_exceeded"


def out_of_memory_reason(error: BaseException) -> str | None:
    """How an error says that memory ran out; None if it is another error.

    CUDA, cuBLAS, NCCL and the compiler each have a message of their own, and errors of the compiler wrap
    others.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, RuntimeError):
            for line in str(link).splitlines():
                if _OUT_OF_MEMORY.search(line):
                    return printable(line.split(". ")[0], 200)
        link = link.__cause__ or link.__context__
    return None


def did_you_mean(word: str, candidates: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest candidate, or an empty string."""
    close = difflib.get_close_matches(word, list(candidates), n=1)
    return f"; did you mean '{close[0]}'?" if close else ""


@contextlib.contextmanager
def unforeseen_at(where: str) -> Iterator[None]:
    """Raise an exception of the block that is none of ours as a RaysysError that names the place.

    For work in tasks of a cluster, whose exceptions would arrive as a traceback in Ray's own words.
    """
    try:
        yield
    except RaysysError:
        raise
    except Exception as error:
        raise RaysysError(
            f"{where}: unexpected {type(error).__name__} ({printable(error, REASON_LENGTH)}); "
            "run the command again; if it fails there again, report this line"
        ) from error


def known_cause(error: BaseException) -> RaysysError | None:
    """The RaysysError behind an error that may have crossed Ray; None if there is none.

    An error of a Ray task arrives as a traceback with the original error as `cause`. For an actor that did
    not start only the text arrives: its last line has the class and the message of the original error. Any
    other last line becomes the message of a ClusterError.
    """
    link: BaseException | None = error
    while link is not None:
        inner: BaseException | None = getattr(link, "cause", None)
        if isinstance(link, RaysysError) and inner is None:
            return link
        if isinstance(link, ModuleNotFoundError) and link.name == "faiss":
            return InputError(
                "faiss is not installed: pip install 'raysys[cpu]', or with NVIDIA GPUs 'raysys[gpu]'"
            )
        link = inner or link.__cause__
    if type(error).__module__.startswith("ray."):
        return _from_text(str(error).strip().split("\n")[-1].strip())
    return None


def _from_text(line: str) -> RaysysError:
    """The error that a traceback ends with, `raysys.errors.SpaceMismatch: ..`; else a ClusterError."""
    name, _, message = line.partition(": ")
    module, _, name = name.rpartition(".")
    found = globals().get(name) if module == __name__ else None
    if not (isinstance(found, type) and issubclass(found, RaysysError)) or found is Stopped:
        return ClusterError(line)
    return found(message)
