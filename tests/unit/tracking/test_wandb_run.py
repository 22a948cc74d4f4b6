"""Opening a run in W&B: online, offline if it does not answer, refused; with a fake of its client."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import wandb

from raysys.config.schema import TrackingConfig
from raysys.errors import TrackingRefused
from raysys.tracking.wandb_run import WandbRun, open_wandb_run, reachable_tracking, upload_command

ONLINE = TrackingConfig(mode="online", connect_timeout_s=2, finish_timeout_s=3)
LATE = wandb.errors.CommError("POST http://127.0.0.1/graphql:\ncontext deadline exceeded")
BUSY = wandb.errors.CommError("context deadline exceeded\nwhile retrying: HTTP 503: permission denied")
UNKNOWN = RuntimeError("the service process is busy")
WRONG = [
    wandb.errors.CommError("Failed to get resume status: returned error 401: {}"),
    wandb.errors.CommError("Failed to get resume status: input: permission denied"),
    wandb.errors.AuthenticationError("WANDB_API_KEY invalid: API key must have 40+ characters, has 3."),
    wandb.errors.UsageError("No API key configured. Use `wandb login` to log in."),
    ValueError("base_url: invalid URL"),
]


class FakeClient:
    """The functions of wandb that open and close runs; `error` is raised for an online run."""

    def __init__(self, error: Exception | None) -> None:
        self.error, self.inits, self.calls = error, list[Any](), list[str]()

    def init(self, **settings: Any) -> Any:
        self.inits.append(settings)
        self.calls.append(settings["mode"])
        if self.error is not None and settings["mode"] == "online":
            raise self.error
        return SimpleNamespace(
            dir=f"{settings['dir']}/wandb/{settings['mode']}-run-1/files",
            define_metric=lambda *_, **__: None,
            finish=lambda: self.calls.append("finish"),
            log=lambda values: None,
        )

    def teardown(self) -> None:
        self.calls.append("teardown")


def use_client(monkeypatch: pytest.MonkeyPatch, error: Exception | None) -> FakeClient:
    client = FakeClient(error)
    monkeypatch.setattr(wandb, "init", client.init)
    monkeypatch.setattr(wandb, "teardown", client.teardown)
    return client


@pytest.mark.parametrize("error", [LATE, BUSY, UNKNOWN, WRONG[0]])
def test_run_is_logged_offline_if_it_cannot_be_opened_online(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    client = use_client(monkeypatch, error)
    with open_wandb_run("small", str(tmp_path), {}, ONLINE) as run:
        assert not run.is_live
    # Without the teardown W&B's process refuses a second run of the same id.
    assert client.calls == ["online", "teardown", "offline", "finish"]
    first, last = caplog.messages
    assert first.startswith("W&B: ")
    assert first.endswith("; logging offline")
    assert "\n" not in first
    assert last == (
        "W&B: offline-run-1 is not uploaded; when W&B answers: "
        f"wandb sync --append {tmp_path}/wandb/offline-run-1"
    )


def test_limits_are_those_of_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = use_client(monkeypatch, None)
    with open_wandb_run("small", str(tmp_path), {}, ONLINE) as run:
        assert run.is_live
    settings = client.inits[0]["settings"]
    assert (settings.init_timeout, settings.finish_timeout, settings.finish_timeout_raises) == (2, 3, True)


@pytest.mark.parametrize("error", [LATE, BUSY, UNKNOWN])
def test_start_continues_offline_if_wandb_does_not_answer(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    use_client(monkeypatch, error)
    assert reachable_tracking("small", "s3://shop/run", {}, ONLINE).mode == "offline"
    (line,) = caplog.messages
    assert line.startswith("W&B: no run within 2 s, tracking.connect_timeout_s (")
    assert line.endswith("); this start logs offline")


@pytest.mark.parametrize("error", WRONG)
def test_refusal_ends_the_start_with_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    use_client(monkeypatch, error)
    with pytest.raises(TrackingRefused, match=r"^W&B: refused \([^\n]+\); correct WANDB_API_KEY, ") as caught:
        reachable_tracking("small", "s3://shop/run", {}, ONLINE)
    assert caught.value.exit_status == 2


def test_start_that_is_not_online_does_not_touch_wandb(monkeypatch: pytest.MonkeyPatch) -> None:
    client = use_client(monkeypatch, LATE)
    for mode in ("offline", "disabled"):
        assert reachable_tracking("small", "run", {}, TrackingConfig(mode=mode)).mode == mode
    assert client.calls == []


def test_failure_while_logging_is_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise BrokenPipeError("the service process\nhas died")

    run = WandbRun(SimpleNamespace(log=fail), is_live=True)
    assert [run.log({"loss": 1.0}, step) for step in (1, 2)] == [False, False]
    assert caplog.messages == ["W&B: no more is logged to this segment (the service process\\nhas died)"]


def test_upload_that_is_late_leaves_the_segment_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def finish() -> None:
        raise TimeoutError("Timed out finishing run.")

    client = use_client(monkeypatch, None)
    with open_wandb_run("small", str(tmp_path), {}, ONLINE) as run:
        run._run.finish = finish
    assert client.calls == ["online"]
    assert caplog.messages == [
        f"W&B: online-run-1 is not uploaded; when W&B answers: wandb sync {tmp_path}/wandb/online-run-1"
    ]


def test_segments_on_an_object_store_are_copied_first() -> None:
    command = upload_command("s3://shop/run", "offline-run-*")
    assert command == "copy it to a disk, then wandb sync --append s3://shop/run/wandb/offline-run-*"
