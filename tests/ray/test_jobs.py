"""Job submission to a real Ray head with a dashboard, and error cases that need no cluster."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ray.job_submission import JobSubmissionClient

from raysys.cluster import jobs
from raysys.config import Config, load_config
from raysys.config.schema import EncoderConfig, RayConfig
from raysys.errors import ClusterError, InputError

# Ray 2.60's own client uses a deprecated form of aiohttp's `ssl` argument.
pytestmark = pytest.mark.filterwarnings("ignore:ssl=None is deprecated:DeprecationWarning")
NO_SERVER = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    for variable in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def head() -> Iterator[str]:
    """The dashboard's address of a Ray head that runs in its own process group during this module."""
    gcs, dashboard, agent, client_server = free_ports(4)
    address = f"http://127.0.0.1:{dashboard}"
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    environment.pop("RAY_ADDRESS", None)
    # Under /tmp: Ray creates sockets there, and a socket's path is limited to 107 bytes.
    with tempfile.TemporaryDirectory(prefix="rj", dir="/tmp", ignore_cleanup_errors=True) as folder:
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
            *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--ray-client-server-port={client_server}", "--include-dashboard=true"),
            *(f"--temp-dir={folder}", f"--object-store-memory={100 << 20}"),
        ]
        log = Path(folder) / "head.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                command, env=environment, stdout=stream, stderr=stream, start_new_session=True, cwd=folder
            )
        try:
            wait_until(
                lambda: (
                    responds(f"{address}/api/version") and responds(f"http://127.0.0.1:{agent}/api/healthz")
                ),
                log,
            )
            yield address
        finally:
            end_group(process)


def test_submit_prints_the_job_s_log_and_returns_its_exit_status(
    head: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", NO_SERVER)  # the given address wins
    status, out, err = submit(head, make_config("work"), "echo hello; echo trouble >&2; cat config.yaml; ls")
    assert status == 0
    assert {"hello", "trouble", "name: work", "config.yaml"} <= set(out.splitlines())
    assert f"{job_id('work', 1)}: submitted to {head}" in err

    # That job has ended, so the same work starts a new attempt.
    status, _, err = submit(head, make_config("work"), "exit 3")
    assert status == 3
    assert f"{job_id('work', 2)}: submitted to {head}" in err
    assert f"{job_id('work', 2)}: FAILED: Job entrypoint command failed with exit code 3" in err


# test_concurrent_submissions_share_one_job covers the same without a cluster.
@pytest.mark.slow
def test_same_command_attaches_to_the_running_job(head: str, tmp_path: Path) -> None:
    flag = tmp_path / "continue"
    waits = f"echo first; until [ -e '{flag}' ]; do sleep 0.1; done; echo last"
    status, out, _ = submit(head, make_config("slow"), waits, follow=False)
    assert (status, out) == (0, f"{job_id('slow', 1)}\n")
    status, out, err = submit(head, make_config("slow"), waits, at_text=("first", flag.touch))
    assert status == 0
    assert [line for line in out.splitlines() if line in ("first", "last")] == ["first", "last"]
    assert f"{job_id('slow', 1)}: already running on {head}" in err


# Two jobs of ten seconds.
@pytest.mark.slow
def test_interrupt_leaves_the_job_running_and_a_stopped_job_is_a_failure(head: str) -> None:
    client = JobSubmissionClient(head)
    endless = "echo ready; sleep 600"
    status, _, err = submit(head, make_config("endless"), endless, at_text=("ready", press_ctrl_c))
    assert status == 130
    assert f"ray job stop --address {head} {job_id('endless', 1)}" in err
    assert str(client.get_job_status(job_id("endless", 1))) == "RUNNING"

    def stop() -> None:
        client.stop_job(job_id("endless", 1))

    status, _, err = submit(head, make_config("endless"), endless, at_text=("ready", stop))
    assert status == 1
    assert f"{job_id('endless', 1)}: STOPPED: " in err


def test_missing_cluster_is_a_one_line_error() -> None:
    with pytest.raises(ClusterError) as caught:
        submit(NO_SERVER, make_config("any"), "true")
    assert str(caught.value) == (
        "http://127.0.0.1:9: no Ray cluster answers; "
        "start one (ray start --head) or give another --address (http://HEAD:8265)"
    )


@pytest.mark.parametrize("code", [401, 403])
def test_refused_token_error_names_the_variables(code: int) -> None:
    with server_with_status(code) as address, pytest.raises(ClusterError) as caught:
        submit(address, make_config("any"), "true")
    assert str(caught.value).startswith(f"{address}: the cluster refuses access (Authentication ")
    assert str(caught.value).endswith("set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN to the cluster's token")


def test_server_that_is_not_a_cluster_is_an_error() -> None:
    with server_with_status(404) as address, pytest.raises(ClusterError) as caught:
        submit(address.removeprefix("http://"), make_config("any"), "true")
    assert "the job server answered: Version check returned 404" in str(caught.value)


def test_unknown_stage_is_an_input_error() -> None:
    with pytest.raises(
        InputError, match=r"^trian: no such stage; did you mean 'train'\?; choose one of run, "
    ):
        jobs.submit("trian", Config(), address=None, follow=True, out=io.StringIO(), err=io.StringIO())


def test_sent_configuration_is_unchanged_except_for_ray(tmp_path: Path) -> None:
    config = Config(name="x", root="s3://shop/raysys", ray=RayConfig(num_cpus=2))
    (tmp_path / "config.yaml").write_text(
        jobs.config_text(config, where="http://head:8265", err=io.StringIO())
    )
    assert load_config(str(tmp_path / "config.yaml")) == config.model_copy(update={"ray": RayConfig()})


def test_relative_root_is_refused_for_a_remote_cluster() -> None:
    with pytest.raises(
        InputError, match=r"^root: '\.raysys' is relative to a folder that the job on http://head"
    ):
        jobs.config_text(Config(), where="http://head:8265", err=io.StringIO())


def test_relative_paths_become_absolute_for_a_local_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    err = io.StringIO()
    text = jobs.config_text(Config(encoder=EncoderConfig(start="weights")), where=NO_SERVER, err=err)
    assert f"root: {tmp_path}/.raysys\n" in text
    assert f"start: {tmp_path}/weights\n" in text
    assert "mobilenet: google/mobilenet_v2_1.0_224\n" in text  # a hub id is not a path
    assert err.getvalue().startswith(f"root: .raysys is {tmp_path}/.raysys for the job\n")


def test_local_jobs_use_the_running_interpreter_and_remote_ones_python() -> None:
    remote = jobs.build_entrypoint("train", None, where="http://head:8265")
    assert remote == "python -m raysys train config.yaml"
    given = jobs.build_entrypoint("train", "/opt/my venv/python", where="http://head:8265")
    assert given == "'/opt/my venv/python' -m raysys train config.yaml"
    local = jobs.build_entrypoint("train", None, where="http://localhost:8265")
    chosen = subprocess.check_output(["bash", "-c", f"echo {local}"], text=True)
    assert chosen == f"{sys.executable} -m raysys train config.yaml\n"


def test_log_continues_after_a_lost_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_RECONNECT_AFTER_S", (0.0,))
    client = FlakyClient([["one\ntw", RuntimeError("cut")], ["one\n", "two\nth"], ["one\ntwo\nthree\n"]])
    out = io.StringIO()
    asyncio.run(jobs._copy_log(cast(JobSubmissionClient, client), "job", out))
    assert out.getvalue() == "one\ntwo\nthree\n"


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (["step 1\r", "\nstep 2\r\x1b[2K"], "step 1\\r\nstep 2\\r\\x1b[2K"),
        (["title \x1b", "]0;owned\x07\n"], "title \\x1b]0;owned\\x07\n"),
        (["a\tb\n赤い \u202e\x9b31m\n"], "a\tb\n赤い \\u202e\\x9b31m\n"),
    ],
)
def test_log_of_a_job_cannot_control_the_terminal(chunks: list[str | Exception], expected: str) -> None:
    out = io.StringIO()
    asyncio.run(jobs._copy_log(cast(JobSubmissionClient, FlakyClient([chunks])), "job", out))
    assert out.getvalue() == expected


def test_escapes_do_not_shift_the_place_where_a_log_continues(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_RECONNECT_AFTER_S", (0.0,))
    out = io.StringIO()
    client = FlakyClient([["\x1b\x1bone\ntw", RuntimeError("cut")], ["\x1b\x1bone\ntwo\n"]])
    asyncio.run(jobs._copy_log(cast(JobSubmissionClient, client), "job", out))
    assert out.getvalue() == "\\x1b\\x1bone\ntwo\n"


def test_connection_that_stays_lost_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "_RECONNECT_AFTER_S", (0.0, 0.0))
    client = FlakyClient([[RuntimeError("cut")]] * 3)
    with pytest.raises(
        ClusterError, match=r"^job: connection to http://head lost \(cut\); repeat the command"
    ):
        asyncio.run(jobs._copy_log(cast(JobSubmissionClient, client), "job", io.StringIO()))


def test_concurrent_submissions_share_one_job() -> None:
    client = RacingClient()
    job = jobs._find_or_start(cast(JobSubmissionClient, client), "raysys-train-x-0", "true", "")
    assert job == ("raysys-train-x-0-1", False)


class FlakyClient:
    """Plays one list of log chunks and errors per connection; the job ends with the last list."""

    def __init__(self, connections: list[list[str | Exception]]) -> None:
        self.connections = connections

    def get_address(self) -> str:
        return "http://head"

    async def tail_job_logs(self, job_id: str) -> AsyncIterator[str]:
        for event in self.connections.pop(0):
            if isinstance(event, Exception):
                raise event
            yield event

    def get_job_info(self, job_id: str) -> Any:
        return SimpleNamespace(status=SimpleNamespace(is_terminal=lambda: not self.connections))


class RacingClient:
    """Another client submits the same work after our check and before our submission."""

    def __init__(self) -> None:
        self.jobs: list[Any] = []

    def list_jobs(self) -> list[Any]:
        return self.jobs

    def submit_job(self, *, submission_id: str, **others: object) -> str:
        running = SimpleNamespace(is_terminal=lambda: False)
        self.jobs.append(SimpleNamespace(submission_id=submission_id, status=running))
        raise RuntimeError("Request failed with status code 500: already exists")


class TriggerIO(io.StringIO):
    """Calls `action` once, when `text` has been written."""

    def __init__(self, text: str, action: Callable[[], object]) -> None:
        super().__init__()
        self.text, self.action = text, action

    def flush(self) -> None:
        if self.text and self.text in self.getvalue():
            self.text = ""
            self.action()


def submit(
    address: str,
    config: Config,
    entrypoint: str,
    *,
    follow: bool = True,
    at_text: tuple[str, Callable[[], object]] = ("", lambda: None),
) -> tuple[int, str, str]:
    out, err = TriggerIO(*at_text), io.StringIO()
    status = jobs.submit(
        "train", config, address=address, follow=follow, entrypoint=entrypoint, out=out, err=err
    )
    return status, out.getvalue(), err.getvalue()


def make_config(name: str) -> Config:
    return Config(name=name, root="/shop")


def job_id(name: str, attempt: int) -> str:
    text = jobs.config_text(make_config(name), where=NO_SERVER, err=io.StringIO())
    return f"{jobs.job_stem('train', name, text)}-{attempt}"


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


@contextlib.contextmanager
def server_with_status(code: int) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(code)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def wait_until(is_ready: Callable[[], bool], log: Path, timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_ready():
        assert time.monotonic() < deadline, f"the head did not start: {log.read_text()[-2000:]}"
        time.sleep(0.2)


def end_group(process: subprocess.Popen[bytes]) -> None:
    """Terminate `ray start`, which ends its children; kill the group if it does not within 15 s."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=15)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
