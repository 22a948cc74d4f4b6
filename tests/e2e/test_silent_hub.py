"""A model hub that does not answer, or stops in the middle of a file: `raysys train` ends in one line."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.e2e.conftest import CompletedRun
from tests.e2e.small import kill_group, start_raysys
from tests.e2e.test_silent_servers import last_line, silent_server, wait_for_text
from tests.factories import tiny_checkpoint

COMMIT = "c0ffee" * 6 + "abcd"
START = "shop/siglip"


@pytest.fixture
def hub_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> pytest.MonkeyPatch:
    """An empty cache, and no limits of the client's own."""
    for name in ("HF_HUB_OFFLINE", "HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    return monkeypatch


@pytest.mark.parametrize("interrupt", [False, True], ids=["time limit", "Ctrl-C"])
def test_wait_for_a_silent_hub_ends(
    interrupt: bool, completed_run: CompletedRun, hub_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with silent_server() as port:
        hub_environment.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
        limit_s = 300 if interrupt else 5
        status, err = train(completed_run, tmp_path, f"hub.contact_timeout_s={limit_s}", interrupt=interrupt)
    assert f"{START} at http://127.0.0.1:{port}: still waiting after 4 s, at most {limit_s} s" in err
    assert status == (130 if interrupt else 2)
    assert interrupt or last_line(err) == (
        f"raysys: {START}: weights not reachable here (http://127.0.0.1:{port} gave no answer within 5 s); "
        "give a local path, or raise hub.contact_timeout_s"
    )


def test_hub_that_stops_in_the_middle_of_a_file_is_given_up(
    completed_run: CompletedRun, hub_environment: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = Path(tiny_checkpoint(tmp_path / "weights", ["red cup", "blue hat"]))
    with half_hub(folder, "model.safetensors") as hub:
        hub_environment.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}")
        status, err = train(completed_run, tmp_path, "hub.contact_timeout_s=1")
    assert status == 2
    assert hub.num_halves > 1  # the client tries again
    assert f"{START} from the hub: still waiting after 4 s, at most 3600 s" in err
    assert last_line(err) == (
        f"raysys: {START}: the download from the hub stopped (timed out); the same command continues, or give "
        "a local path"
    )


def train(run: CompletedRun, folder: Path, limit: str, *, interrupt: bool = False) -> tuple[int, str]:
    """The exit status and stderr of `raysys train` from `START`; after its first line, Ctrl-C if wanted."""
    words = ("train", str(run.config), "name=from-hub", f"encoder.start={START}", limit)
    process = start_raysys(*words, log_stem=folder / "train")
    try:
        if interrupt:
            wait_for_text(folder / "train.err", "still waiting after")
            process.send_signal(signal.SIGINT)
        status = process.wait(10 if interrupt else 120)
    finally:
        kill_group(process)
    return status, (folder / "train.err").read_text()


class HalfHub(ThreadingHTTPServer):
    """Serves the files of a folder as a checkpoint; of one file it sends half, and then nothing more."""

    daemon_threads = True

    def __init__(self, folder: Path, half: str) -> None:
        super().__init__(("127.0.0.1", 0), _HubHandler)
        self.folder, self.half, self.num_halves, self.release = folder, half, 0, threading.Event()


@contextlib.contextmanager
def half_hub(folder: Path, half: str) -> Iterator[HalfHub]:
    hub = HalfHub(folder, half)
    threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield hub
    finally:
        hub.release.set()
        hub.shutdown()
        hub.server_close()


class _HubHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HalfHub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.server.folder / self.path.rsplit("/", 1)[-1]
        if self.path.startswith("/api/models/"):
            self._respond(200, json.dumps({"id": START, "sha": COMMIT}).encode(), {})
        elif path.is_file():
            headers = {"ETag": f'"{path.name}"', "X-Repo-Commit": COMMIT}
            self._respond(200, path.read_bytes(), headers, is_half=path.name == self.server.half)
        else:
            self._respond(404, b"", {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET

    def _respond(self, status: int, body: bytes, headers: dict[str, str], *, is_half: bool = False) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[: len(body) // 2] if is_half else body)
        if is_half:
            self.server.num_halves += 1
            self.server.release.wait()
