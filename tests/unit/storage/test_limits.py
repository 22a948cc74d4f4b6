"""Time limits of operations on object stores, with a fake store."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from raysys import storage
from raysys.config.schema import StorageConfig
from raysys.errors import StorageError
from raysys.storage import retry, uri


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """Lets the threads that still wait for the fake store end after the test."""
    event = threading.Event()
    yield event
    event.set()
    storage.configure(StorageConfig())


def test_store_that_never_answers_is_given_up(
    release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uri, "_contact", lambda *_: release.wait())
    storage.configure(StorageConfig(contact_timeout_s=0.02))
    with pytest.raises(StorageError) as caught:
        storage.exists("gs://silent-store/a")
    assert str(caught.value) == (
        "gs://silent-store/a: the object store gave no answer within 0.02 s; check the network, the address "
        "and the credentials in the environment, or raise storage.contact_timeout_s"
    )


def test_operation_that_never_ends_is_not_repeated(release: threading.Event) -> None:
    calls: list[int] = []

    def never_ends() -> None:
        calls.append(1)
        release.wait()

    storage.configure(StorageConfig(operation_timeout_s=0.02))
    with pytest.raises(StorageError) as caught:
        retry.with_retry(never_ends, "s3://shop/a", "read")
    assert str(caught.value) == (
        "s3://shop/a: could not be read (no answer within 0.02 s); check the network, or raise "
        "storage.operation_timeout_s"
    )
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("message", "is_transient"),
    [("AWS Error ACCESS_DENIED during HeadBucket operation", False), ("AWS Error NETWORK_CONNECTION", True)],
)
def test_only_a_transient_error_delays_the_first_contact(message: str, is_transient: bool) -> None:
    store = FailingStore(message)
    if is_transient:
        with pytest.raises(OSError, match=message):
            uri._request_info(store, "shop")
    else:
        uri._request_info(store, "shop")


class FailingStore:
    def __init__(self, message: str) -> None:
        self._message = message

    def get_file_info(self, _: str) -> None:
        raise OSError(self._message)
