"""The temporary folder of a local cluster, and the advice for one that does not start."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from raysys.cluster import session
from raysys.config.schema import RayConfig
from raysys.errors import ClusterError


@pytest.mark.parametrize(("length", "expected"), [(37, None), (38, "/tmp/ray"), (200, "/tmp/ray")])
def test_long_temporary_folder_is_replaced(
    length: int, expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # 37 + 70 bytes of Ray's own names = 107, the limit of a socket's path
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: "/" + "t" * (length - 1))
    assert session._temporary_folder() == expected


@pytest.mark.parametrize(
    ("path", "advice"),
    [
        ("HOME/.ray/auth_token", "set HOME to a folder that can be written, or RAY_AUTH_MODE=disabled"),
        ("/sys/ray", "set TMPDIR to one"),
        (None, "check ray.num_cpus and free memory"),
    ],
)
def test_folder_that_ray_cannot_write_is_named_with_its_remedy(
    path: str | None, advice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    place = path and path.replace("HOME", str(tmp_path))
    error = PermissionError(13, "Permission denied", place) if place else OSError("no memory")

    def fail(_: RayConfig) -> None:
        raise error

    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests of this process may use Ray
    monkeypatch.setattr(session, "_start_local", fail)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ClusterError) as caught:
        session.connect(RayConfig())
    message = str(caught.value)
    assert message.startswith("Ray cannot be started on this machine (")
    assert message.endswith(advice)
    assert place is None or place in message
