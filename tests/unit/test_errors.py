"""The exit status, HTTP status and code of each error, and that errors survive pickling."""

import pickle
import signal

import pytest

from raysys.errors import (
    Busy,
    ClusterError,
    ConfigError,
    DamagedData,
    DeadlineExceeded,
    DiskFull,
    Forbidden,
    GenerationGone,
    InputError,
    MissingArtifact,
    MissingError,
    NoEncoder,
    OutOfMemory,
    ParityFailed,
    RaysysError,
    ServiceUnavailable,
    SpaceMismatch,
    Stopped,
    StorageError,
    StoreFailed,
    SwitchRefused,
    TooLarge,
    TrackingError,
    TrackingRefused,
    TrainingDiverged,
    Unauthorized,
    UnreadableImage,
    did_you_mean,
    known_cause,
)

EXPECTED: dict[type[RaysysError], tuple[int, int, str]] = {
    RaysysError: (1, 500, "internal"),
    InputError: (2, 422, "invalid_input"),
    ConfigError: (2, 422, "invalid_config"),
    MissingError: (2, 404, "not_found"),
    MissingArtifact: (2, 404, "not_found"),
    SpaceMismatch: (2, 409, "space_mismatch"),
    NoEncoder: (2, 409, "no_encoder"),
    UnreadableImage: (2, 415, "unreadable_image"),
    TooLarge: (2, 413, "too_large"),
    TrackingRefused: (2, 422, "tracking_refused"),
    DamagedData: (1, 500, "damaged_data"),
    ParityFailed: (1, 500, "parity_failed"),
    TrainingDiverged: (1, 500, "training_diverged"),
    OutOfMemory: (1, 500, "out_of_memory"),
    StoreFailed: (1, 503, "store_failed"),
    StorageError: (1, 503, "storage_failed"),
    DiskFull: (1, 503, "disk_full"),
    TrackingError: (1, 500, "tracking_failed"),
    Busy: (1, 409, "busy"),
    ClusterError: (1, 503, "unavailable"),
    ServiceUnavailable: (1, 503, "overloaded"),
    Unauthorized: (2, 401, "unauthorized"),
    Forbidden: (2, 403, "forbidden"),
    GenerationGone: (1, 503, "generation_gone"),
    SwitchRefused: (1, 409, "switch_refused"),
    DeadlineExceeded: (1, 504, "deadline_exceeded"),
}


@pytest.mark.parametrize("error", EXPECTED)
def test_error_has_its_exit_status_http_status_and_code(error: type[RaysysError]) -> None:
    assert (error.exit_status, error.http_status, error.code) == EXPECTED[error]


def test_every_error_has_an_expectation() -> None:
    children = {child for parent in EXPECTED for child in parent.__subclasses__()}
    assert {child for child in children if child.__module__ == "raysys.errors"} <= {*EXPECTED, Stopped}


def test_stopped_keeps_the_status_of_its_signal_when_pickled() -> None:
    copy = pickle.loads(pickle.dumps(Stopped("train: stopped", signal.SIGTERM)))
    assert (str(copy), copy.exit_status, copy.code) == ("train: stopped", 143, "stopped")


@pytest.mark.parametrize("error", EXPECTED)
def test_message_survives_pickling(error: type[RaysysError]) -> None:
    copy = pickle.loads(pickle.dumps(error("shop.yaml: what; do")))
    assert type(copy) is error
    assert str(copy) == "shop.yaml: what; do"


def test_reason_of_an_unreadable_image_survives_pickling() -> None:
    copy = pickle.loads(pickle.dumps(UnreadableImage("photo is huge", "too_many_pixels")))
    assert (str(copy), copy.reason) == ("photo is huge", "too_many_pixels")


def test_did_you_mean_offers_only_a_close_word() -> None:
    assert did_you_mean("trian", ["train", "embed"]) == "; did you mean 'train'?"
    assert did_you_mean("wheels", ["train", "embed"]) == ""
    assert did_you_mean("train", []) == ""


def test_known_cause_finds_a_raysys_error_behind_its_carrier() -> None:
    class TaskError(RuntimeError):  # as Ray's
        cause = InputError("items.csv: empty")

    carried = TaskError("a traceback\nof many lines")
    assert str(known_cause(carried)) == "items.csv: empty"
    assert known_cause(ValueError("a bug of ours")) is None


@pytest.mark.parametrize(
    ("last_line", "kind", "message"),
    [
        ("raysys.errors.SpaceMismatch: a: of space b, c: of d", SpaceMismatch, "a: of space b, c: of d"),
        ("raysys.errors.DamagedData: x.parquet: damaged", DamagedData, "x.parquet: damaged"),
        ("raysys.errors.Unknown: x", ClusterError, "raysys.errors.Unknown: x"),
        ("raysys.errors.Stopped: x", ClusterError, "raysys.errors.Stopped: x"),
        ("ValueError: x", ClusterError, "ValueError: x"),
        ("The actor died", ClusterError, "The actor died"),
    ],
)
def test_known_cause_of_an_actor_that_did_not_start_is_in_its_last_line(
    last_line: str, kind: type[RaysysError], message: str
) -> None:
    from ray.exceptions import RayError

    known = known_cause(RayError(f"The actor died\n  {last_line}"))
    assert type(known) is kind
    assert str(known) == message
