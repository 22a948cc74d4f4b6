"""Changes of items on a real service: found soon, and kept through `kill -9` of everything and a new index; then Ctrl-C."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image

from raysys.config.schema import ServeConfig
from raysys.serve.admission import encoder_requests
from tests.e2e.conftest import STOP_TIMEOUT_S, CompletedRun, wait_until_ready
from tests.e2e.small import NAME, foreign_lines, free_port, run_raysys, start_raysys
from tests.postgres import PostgresServer

WAIT_S = 60.0  # of a busy machine; the service looks for changes ten times a second
KILLS = int(os.environ.get("RAYSYS_KILLS", "3"))


@dataclass(frozen=True)
class Shop:
    """A root of its own with all artifacts, and how to serve it."""

    root: Path
    config: Path
    overrides: tuple[str, ...]

    @contextlib.contextmanager
    def served(self, *, ends_with_ctrl_c: bool = False) -> Iterator[httpx.Client]:
        """A client of the service, whose processes get `kill -9` at the end.

        With `ends_with_ctrl_c`, Ctrl-C must stop it with status 0, and stderr must hold only lines of raysys.
        """
        port = free_port()
        log_stem = self.root / f"serve-{port}"
        words = ("serve", str(self.config), f"serve.port={port}", *self.overrides)
        process = start_raysys(*words, log_stem=log_stem)
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_until_ready(url, process, log_stem)
            with httpx.Client(base_url=url, timeout=WAIT_S) as client:
                yield client
            if ends_with_ctrl_c:
                process.send_signal(signal.SIGINT)
                assert process.wait(STOP_TIMEOUT_S) == 0
                assert foreign_lines(log_stem.with_suffix(".err").read_text()) == []
        finally:
            kill_all(process)


@pytest.fixture
def new_shop(completed_run: CompletedRun, tmp_path: Path) -> Callable[..., Shop]:
    def new(*overrides: str) -> Shop:
        shutil.copytree(completed_run.root, tmp_path / "root")
        root = tmp_path / "root"
        return Shop(root, completed_run.config, (f"root={root}", *overrides))

    return new


def kill_all(process: subprocess.Popen[bytes]) -> None:
    """`kill -9` of the command and of every process of Ray and HAProxy below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        children = psutil.Process(process.pid).children(recursive=True)
        process.kill()
        for child in children:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(children, timeout=WAIT_S)
    process.wait(WAIT_S)


def photo(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize((48, 48), Image.Resampling.NEAREST).save(buffer, "JPEG")
    return buffer.getvalue()


def put(client: httpx.Client, item_id: str, seed: int) -> int:
    response = client.put(
        f"/v1/items/{item_id}", files={"image": photo(seed)}, data={"title": f"item {seed}"}
    )
    assert response.status_code == 200, response.text
    return int(response.json()["change"])


def delete(client: httpx.Client, item_id: str) -> int:
    response = client.delete(f"/v1/items/{item_id}")
    assert response.status_code == 200, response.text
    return int(response.json()["change"])


def wait_for(client: httpx.Client, change: int) -> dict[str, Any]:
    """The state of the service once the change is applied."""
    deadline = time.monotonic() + WAIT_S
    while (ready := client.get("/readyz").json())["last_change"] < change:
        assert time.monotonic() < deadline, ready
        time.sleep(0.02)
    return dict(ready)


def nearest(client: httpx.Client, seed: int) -> list[str]:
    """The items whose photo is as near to the photo as a photo to itself."""
    response = client.post("/v1/search", files={"image": photo(seed)}, data={"k": "10"})
    return [item["item_id"] for item in response.json()["items"] if item["score"] > 0.9999]


def test_changes_are_found_and_survive_kill_9_and_a_new_index(new_shop: Callable[..., Shop]) -> None:
    shop = new_shop()
    check_changes(shop, sqlite_file=shop.root / "store.db")


@pytest.mark.slow
def test_changes_are_found_and_survive_kill_9_and_a_new_index_on_postgresql(
    new_shop: Callable[..., Shop], postgres: PostgresServer
) -> None:
    check_changes(
        new_shop(
            f"store.url={postgres.new_database()}", "serve.gateway_replicas=2", "serve.search_replicas=2"
        )
    )


def check_changes(shop: Shop, sqlite_file: Path | None = None) -> None:
    with shop.served() as client:
        listed = client.get("/v1/items", params={"limit": 2}).json()["items"]
        sold, replaced = (item["item_id"] for item in listed)
        put(client, "new", 1)
        put(client, replaced, 2)
        wait_for(client, delete(client, sold))
        assert nearest(client, 1) == ["new"]
        assert nearest(client, 2) == [replaced]
        assert client.get("/v1/items/new/photo").content == photo(1)
        assert client.get(f"/v1/items/{sold}/similar").status_code == 404
        cheap = {"title": "cheap", "attributes": '{"price": "cheap"}'}
        refused = client.put("/v1/items/cheap", files={"image": photo(5)}, data=cheap)
        assert refused.status_code == 422
        assert "attribute 'price' is a number in the index, got a text" in refused.text
        if sqlite_file is not None:
            check_queries_while_it_is_locked(client, sqlite_file)
        last = put(client, "last", 3)  # and at once:
    with shop.served() as client:
        ready = client.get("/readyz").json()
        assert (ready["last_change"], ready["num_items"]) == (last, 151)
        assert nearest(client, 3) == ["last"]
        assert client.get(f"/v1/items/{sold}/similar").status_code == 404
        finished = run_raysys("index", str(shop.config), *shop.overrides, folder=shop.root)
        assert finished.status == 0, finished.stderr
        later = put(client, "later", 4)
    manifest = json.loads((shop.root / "indexes" / NAME / "manifest.json").read_text())
    assert (manifest["last_change"], manifest["num_items"]) == (last, 151)
    with shop.served(ends_with_ctrl_c=True) as client:
        assert client.get("/readyz").json()["last_change"] == later
        assert [nearest(client, seed) for seed in (1, 2, 3, 4)] == [["new"], [replaced], ["last"], ["later"]]
        assert client.get("/v1/items/new/photo").content == photo(1)


def check_queries_while_it_is_locked(client: httpx.Client, sqlite_file: Path) -> None:
    """As many items with photos wait for the database as the encoder has places."""
    names = [f"locked-{number}" for number in range(encoder_requests(ServeConfig()))]
    lock = sqlite3.connect(sqlite_file, isolation_level=None)
    with ThreadPoolExecutor(len(names)) as threads:
        lock.execute("BEGIN IMMEDIATE")
        try:
            changes = [threads.submit(put, client, name, 6) for name in names]
            time.sleep(2)  # they are embedded, and wait
            are_waiting = [not change.done() for change in changes]
            search = client.post("/v1/search", files={"image": photo(7)})
            similar = client.get("/v1/items/new/similar")
        finally:
            lock.execute("ROLLBACK")
            lock.close()
    assert all(are_waiting)
    assert (search.status_code, similar.status_code) == (200, 200), search.text
    for name, change in zip(names, changes, strict=True):
        assert change.result() > 0
        delete(client, name)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_acknowledged_changes_survive_repeated_kill_9_of_everything(new_shop: Callable[..., Shop]) -> None:
    """Set RAYSYS_KILLS to 100 for a complete run."""
    shop, rng = new_shop(), random.Random(0)
    expected: dict[str, int] = {}
    last = 0
    for _ in range(KILLS):
        with shop.served() as client:
            assert client.get("/readyz").json()["last_change"] == last
            for item_id, seed in expected.items():
                assert item_id in nearest(client, seed)
            for _ in range(rng.randint(1, 4)):
                item_id = f"k{rng.randrange(5)}"
                if rng.random() < 0.3 and item_id in expected:
                    del expected[item_id]
                    last = delete(client, item_id)
                else:
                    expected[item_id] = rng.randrange(1_000_000)
                    last = put(client, item_id, expected[item_id])
