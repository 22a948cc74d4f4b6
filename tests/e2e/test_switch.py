"""A running service under load gets a new pair of encoder and index, goes back, and loses a replica."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from raysys.serve.versions import published
from tests.e2e.conftest import STOP_TIMEOUT_S, wait_until_ready
from tests.e2e.small import free_port, kill_group, run_raysys, start_raysys
from tests.factories import photo
from tests.unit.serve.conftest import ITEM_IDS, photos
from tests.unit.serve.shop import Shop

WAIT_S = 120.0
NUM_REPLICAS = 2


class Load:
    """Clients that send requests one after the other, each a second time if it fails, and check every response."""

    def __init__(self, url: str) -> None:
        self._url, self._stopped = url, threading.Event()
        self.failures: list[str] = []
        self.num_requests = 0
        self.retried: list[str] = []
        self.seen: Counter[tuple[str, str]] = Counter()
        """Space id and index version, without the number of the last change."""
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        with httpx.Client(base_url=self._url, timeout=60) as client:
            turn = 0
            while not self._stopped.is_set():
                try:
                    self._request(client, number, turn := turn + 1)
                except Exception as error:
                    self.failures.append(repr(error))

    def _request(self, client: httpx.Client, number: int, turn: int) -> None:
        image = photos()[turn % len(ITEM_IDS)]
        body = self._json(client, "POST", "/v1/search", files={"image": image}, data={"k": "1"})
        if abs(body["items"][0]["score"] - 1.0) > 1e-4:  # the vector of the photo in another space
            self.failures.append(f"score {body['items'][0]['score']} of {body['index_version']}")
        self._saw(body)
        self._saw(self._json(client, "GET", "/v1/items/m1/similar", params={"k": 3}))
        self._json(client, "POST", "/v1/embed", json={"texts": ["a cup"]})
        if turn % 5 == 0:
            item_id = f"new-{number}-{turn}"
            new = photo((0, 200, turn % 250))
            fields = {"title": "new"}
            self._json(client, "PUT", f"/v1/items/{item_id}", files={"image": new}, data=fields)

    def _saw(self, body: dict[str, Any]) -> None:
        self.seen[body["space_id"], body["index_version"].split(".")[0]] += 1

    def _json(self, client: httpx.Client, method: str, url: str, **options: Any) -> dict[str, Any]:
        self.num_requests += 1
        try:
            return self._sent(client, method, url, **options)
        except httpx.HTTPError as error:
            self.retried.append(f"{method} {url}: {error!r}")
        return self._sent(client, method, url, **options)

    @staticmethod
    def _sent(client: httpx.Client, method: str, url: str, **options: Any) -> dict[str, Any]:
        response = client.request(method, url, **options)
        if response.status_code != httpx.codes.OK:
            raise httpx.HTTPError(f"{response.status_code} {response.text}")
        return dict(response.json())


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop(tmp_path / "root", monkeypatch, num_files=2)
    shop.publish(1)
    return shop


@pytest.fixture
def service(shop: Shop, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Path, int]]:
    """The address, the configuration and the process of a service with these settings."""
    port = free_port()
    tree = {
        "name": "shop",
        "root": str(shop.root),
        "projection": {"dimensions": None},
        "serve": {"port": port, **request.param},
        "ray": {"num_cpus": 8, "object_store_megabytes": 200},
    }
    config = tmp_path / "shop.yaml"
    config.write_text(yaml.safe_dump(tree))
    url, log_stem = f"http://127.0.0.1:{port}/", tmp_path / "serve"
    process = start_raysys("serve", str(config), log_stem=log_stem)
    try:
        wait_until_ready(url, process, log_stem)
        yield url, config, process.pid
        process.send_signal(signal.SIGTERM)
        process.wait(STOP_TIMEOUT_S)
    finally:
        kill_group(process)
    assert process.returncode == 0, log_stem.with_suffix(".err").read_text()


@pytest.mark.slow  # about a minute each
@pytest.mark.parametrize(
    ("service", "name"),
    [
        ({"gateway_replicas": NUM_REPLICAS}, "Gateway"),
        ({"search_replicas": NUM_REPLICAS}, "Searcher"),
        ({"search_replicas": NUM_REPLICAS, "search_partitions": 2}, "Searcher-1"),
    ],
    indirect=["service"],
)
def test_switch_rollback_and_a_killed_replica_under_load(
    shop: Shop, service: tuple[str, Path, int], name: str
) -> None:
    url, config, pid = service
    old = published(shop.config, 1)
    shop.publish(2, with_changes=True)
    new = published(shop.config, 2)
    with Load(url) as load:
        switched = run_raysys("serve", str(config), "--switch", folder=config.parent)
        assert (switched.status, switched.stdout) == (
            0,
            f"index {old.index_version} -> {new.index_version}\n",
        ), switched.stderr
        num_after_switch = load.num_requests
        wait_for(lambda: load.num_requests > num_after_switch + 50)
        back = run_raysys("serve", str(config), "--rollback", folder=config.parent)
        assert back.stdout == f"index {new.index_version} -> {old.index_version}\n", back.stderr
        forth = run_raysys("serve", str(config), "--rollback", folder=config.parent)
        assert forth.status == 0, forth.stderr
    assert load.failures == load.retried == []
    assert set(load.seen) == {(pair.space_id, pair.index_version) for pair in (old, new)}
    print(f"{load.num_requests} requests, {dict(load.seen)}")

    with Load(url) as load:
        victim = next(iter(replicas(pid, name)))
        os.kill(victim, signal.SIGKILL)
        wait_for(lambda: len(replicas(pid, name) - {victim}) == NUM_REPLICAS)
        num_after_start = load.num_requests
        wait_for(lambda: load.num_requests > num_after_start + 50)
    assert load.failures == []
    assert set(load.seen) == {(new.space_id, new.index_version)}
    print(f"{load.num_requests} requests after kill -9 of a {name}, a second time: {load.retried}")

    shop.publish(3)
    damaged = Path(published(shop.config, 3).index_uri)
    file = min(damaged.glob("*.faiss"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    refused = run_raysys("serve", str(config), "--switch", folder=config.parent)
    assert refused.status == 1
    assert f"index {new.index_version} serves on" in refused.stderr.splitlines()[-1]
    assert httpx.get(f"{url}readyz", timeout=60).json()["space_id"] == new.space_id


def replicas(pid: int, name: str) -> set[int]:
    """The processes of the replicas of a deployment."""
    return {
        process.pid
        for process in psutil.Process(pid).children(recursive=True)
        if f"ServeReplica:raysys:{name}" in " ".join(cmdline_of(process))
    }


def cmdline_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it ended
        return []


def wait_for(condition: Any) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)
