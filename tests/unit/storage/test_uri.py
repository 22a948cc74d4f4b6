"""URIs are literal; they resolve to a filesystem and a path."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys import storage
from raysys.errors import InputError


def test_join_does_not_double_slashes() -> None:
    assert storage.join("s3://shop/", "/runs/", "a") == "s3://shop/runs/a"
    assert storage.join("/data", "a") == "/data/a"
    assert storage.join("/", "a") == "/a"


def test_paths_and_file_uris_are_local() -> None:
    assert storage.is_local("runs")
    assert storage.is_local("file:///runs")
    assert not storage.is_local("s3://shop/runs")


def test_local_path_refuses_a_remote_uri() -> None:
    with pytest.raises(InputError) as caught:
        storage.local_path("s3://shop/runs")
    assert str(caught.value) == "s3://shop/runs: a local path is required here"


def test_unknown_scheme_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        storage.exists("ftp://shop/runs")
    assert str(caught.value).startswith("ftp://shop/runs: cannot be opened (")
    assert str(caught.value).endswith("); use a path, s3:// or gs://")


def test_absolute_resolves_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.absolute(".raysys/demo") == str(tmp_path / ".raysys/demo")
    assert storage.absolute("s3://bucket/raysys") == "s3://bucket/raysys"


def test_keys_are_not_percent_encoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raysys.storage.uri._store", lambda scheme, bucket, query: (query, bucket))
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:5000")
    assert storage.resolve("s3://shop/my cup #2?%20.jpg") == (
        "?endpoint_override=http%3A%2F%2F127.0.0.1%3A5000&region=us-east-1",
        "shop/my cup #2?%20.jpg",
    )
    assert storage.resolve("gs://shop/a/b") == ("?retry_limit_seconds=5", "shop/a/b")
    assert storage.resolve("s3://shop") == storage.resolve("s3://shop/")
