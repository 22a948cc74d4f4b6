"""W&B that does not answer, refuses, or falls silent in the middle of a run, with its real client."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raysys import cli
from raysys.config.schema import TrackingConfig
from raysys.tracking.metrics_log import neighbour_grid_uri, read_steps, record_validation
from raysys.tracking.wandb import TrackedRun, open_wandb_logger
from tests.e2e.conftest import CompletedRun
from tests.e2e.small import kill_group, run_raysys, start_raysys, wait_for
from tests.e2e.test_silent_servers import http_server, last_line, silent_server, wait_for_text
from tests.ray.wandb_file import read_run

NUM_STEPS = 2000


@pytest.fixture
def wandb_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A function that sets the port of W&B; its client reads the environment once per session."""
    import wandb

    def use(port: int) -> None:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{port}")
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        wandb.teardown()

    yield use
    with contextlib.suppress(Exception, SystemExit):
        wandb.teardown()


def test_refusal_ends_the_command_before_ray_starts(
    completed_run: CompletedRun, wandb_at: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [f"root={copy_of(completed_run.root, tmp_path)}", "name=refused", "tracking.mode=online"]
    with http_server(401) as port:
        wandb_at(port)
        status = cli.main(["train", str(completed_run.config), *words, "ray.address=127.0.0.1:1"])
    assert status == 2
    error = last_line(capsys.readouterr().err)
    assert error.startswith("raysys: W&B: refused (Failed to get resume status for run ")
    assert "returned error 401" in error
    assert error.endswith("or set tracking.mode=offline")


def test_ctrl_c_ends_the_wait_for_a_silent_server(
    completed_run: CompletedRun, wandb_at: Any, tmp_path: Path
) -> None:
    words = [f"root={copy_of(completed_run.root, tmp_path)}", "name=stopped", "tracking.mode=online"]
    with silent_server() as port:
        wandb_at(port)
        words += ["tracking.connect_timeout_s=300"]
        process = start_raysys("train", str(completed_run.config), *words, log_stem=tmp_path / "run")
        try:
            wait_for_text(tmp_path / "run.err", "W&B: still waiting after 4 s, at most 3")
            process.send_signal(signal.SIGINT)
            status = process.wait(10)
        finally:
            kill_group(process)
    assert status == 130
    assert last_line((tmp_path / "run.err").read_text()).startswith("raysys: stopped")


def test_report_is_published_without_wandb(
    completed_run: CompletedRun,
    wandb_at: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = copy_of(completed_run.root, tmp_path)
    words = [f"root={root}", "tracking.mode=online", "tracking.connect_timeout_s=2", "evaluate.seed=99"]
    with silent_server() as port:
        wandb_at(port)
        status = cli.main(["evaluate", str(completed_run.config), *words])
    output = capsys.readouterr()
    assert status == 0, output.err
    assert json.loads((root / "reports/small/report.json").read_text())["seed"] == "99"
    assert "W&B: no run within 2 s, tracking.connect_timeout_s (" in output.err
    (command,) = re.findall(r"; when W&B answers: wandb sync --append (\S+)", output.err)
    (file,) = Path(command).glob("*.wandb")
    # W&B's own process writes the file; on a busy machine it may still be at it.
    wait_for(lambda: any("report/rungs.path" in row for row in read_run(file).history))


def test_server_that_falls_silent_does_not_delay_steps(
    wandb_at: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    section = TrackingConfig(mode="online", connect_timeout_s=20, finish_timeout_s=1)
    with falling_silent_wandb() as server:
        wandb_at(server.server_address[1])
        with open_wandb_logger(TrackedRun("small", str(tmp_path), {}, section), 0) as logger:
            assert logger is not None
            logger.add(1, {"loss": 1.0})
            assert server.has_metrics.wait(30)
            server.is_silent = True
            seconds = [seconds_of(logger.add, step, {"loss": 1.0}) for step in range(2, NUM_STEPS)]
            record_validation(str(tmp_path), NUM_STEPS, {"val_r@5": 0.5})
            Image.new("RGB", (400, 400)).save(neighbour_grid_uri(str(tmp_path), NUM_STEPS))
            validation_s = seconds_of(logger.log_new_validations)
            ended = time.monotonic()
    # W&B's requests wait 10 s and more. The first image imports modules.
    assert max(seconds) < 5
    assert sum(seconds) < 10
    assert validation_s < 10
    assert time.monotonic() - ended < 20
    (line,) = (record.getMessage() for record in caplog.records if record.name == "raysys")
    (command,) = re.findall(r"is not uploaded; when W&B answers: wandb sync (\S+)$", line)
    (file,) = Path(command).glob("*.wandb")
    history = read_run(file).history
    assert [row["global_step"] for row in history if "train/loss" in row] == list(range(1, NUM_STEPS))
    assert [row["global_step"] for row in history if "train/neighbours.path" in row] == [NUM_STEPS]


# One more training run.
@pytest.mark.slow
def test_training_ends_well_if_wandb_falls_silent(
    completed_run: CompletedRun, wandb_at: Any, tmp_path: Path
) -> None:
    root = copy_of(completed_run.root, tmp_path)
    with falling_silent_wandb(after_metrics=True) as server:
        wandb_at(server.server_address[1])
        words = (f"root={root}", "name=tracked", "tracking.mode=online", "train.log_every_steps=1")
        limits = ("tracking.connect_timeout_s=5", "tracking.finish_timeout_s=2")
        done = run_raysys("train", str(completed_run.config), *words, *limits, folder=tmp_path)
    assert server.is_silent
    assert done.status == 0, done.stderr
    (run,) = (path for path in (root / "runs/tracked").iterdir() if path.is_dir())
    files = sorted((run / "wandb").glob("*run-*/*.wandb"))
    steps = [row["global_step"] for path in files for row in read_run(path).history if "train/loss" in row]
    assert steps == [row["step"] for row in read_steps(str(run))] != []
    assert re.search(rf"is not uploaded; when W&B answers: wandb sync {run}/wandb/run-\S+\n", done.stderr)
    assert f"; when it does: wandb sync --append {run}/wandb/offline-run-*\n" in done.stderr


def copy_of(root: Path, folder: Path) -> Path:
    """A root with the same artifacts."""
    return Path(shutil.copytree(root, folder / "root", ignore=shutil.ignore_patterns("runs")))


def seconds_of(work: Callable[..., None], *arguments: object) -> float:
    started = time.monotonic()
    work(*arguments)
    return time.monotonic() - started


class FallingSilentWandb(ThreadingHTTPServer):
    """Answers as W&B does when a run is opened and logged, until `is_silent`."""

    daemon_threads = True

    def __init__(self, after_metrics: bool) -> None:
        super().__init__(("127.0.0.1", 0), _WandbHandler)
        self.is_silent, self.after_metrics = False, after_metrics
        self.has_metrics, self.release = threading.Event(), threading.Event()


@contextlib.contextmanager
def falling_silent_wandb(*, after_metrics: bool = False) -> Iterator[FallingSilentWandb]:
    """`after_metrics`: it falls silent by itself once it has received the first metrics."""
    server = FallingSilentWandb(after_metrics)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.release.set()
        server.shutdown()
        server.server_close()


class _WandbHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FallingSilentWandb

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        request = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.is_silent:
            self.server.release.wait()
            return
        if self.path.endswith("/file_stream") and b"wandb-history" in request:
            self.server.has_metrics.set()
            self.server.is_silent = self.server.after_metrics
        self._respond(request)

    do_PUT = do_POST

    def _respond(self, request: bytes) -> None:
        variables = json.loads(request)["variables"] if self.path == "/graphql" else {}
        data: dict[str, Any] = {}
        if b"RunResumeStatus" in request:
            data = {"model": {"bucket": None}}
        elif b"mutation UpsertBucket" in request:
            project = {"id": "p", "name": "raysys", "entity": {"id": "e", "name": "shop"}}
            bucket = {"id": "b", "name": variables["name"], "displayName": "", "description": ""}
            bucket |= {"config": "{}", "sweepName": "", "project": project, "historyLineCount": 0}
            data = {"upsertBucket": {"bucket": bucket, "inserted": True}}
        elif b"mutation CreateRunFiles" in request:
            url = f"http://127.0.0.1:{self.server.server_address[1]}/files"
            files = [{"name": name, "uploadUrl": f"{url}/{name}"} for name in variables["files"]]
            data = {"createRunFiles": {"runID": "b", "uploadHeaders": [], "files": files}}
        body = json.dumps({"data": data}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
