"""Load on a running service."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

import httpx

from tests.e2e.small import wait_for
from tests.factories import photo
from tests.unit.serve.conftest import ITEM_IDS, photos


class Load:
    """Clients that send requests one after the other, and check every response.

    A request that fails is sent a second time, and then again for `retry_s`.
    """

    def __init__(self, url: str, retry_s: float = 0.0) -> None:
        self._url, self._retry_s, self._stopped = url, retry_s, threading.Event()
        self.failures: list[str] = []
        self.num_requests = 0
        self.retried: list[str] = []
        self.seen: Counter[tuple[str, str]] = Counter()
        """Space id and index version, without the number of the last change."""
        self.acknowledged: dict[str, int] = {}
        """Items that were put, and the numbers of these changes."""
        self.longest_s = 0.0
        """Until the response of the slowest of the requests that were repeated."""
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def wait_for_requests(self) -> None:
        """Wait until 50 more requests were sent."""
        num_before = self.num_requests
        wait_for(lambda: self.num_requests > num_before + 50)

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
            put = self._json(client, "PUT", f"/v1/items/{item_id}", files={"image": new}, data=fields)
            self.acknowledged[item_id] = put["change"]

    def _saw(self, body: dict[str, Any]) -> None:
        self.seen[body["space_id"], body["index_version"].split(".")[0]] += 1

    def _json(self, client: httpx.Client, method: str, url: str, **options: Any) -> dict[str, Any]:
        self.num_requests += 1
        started = time.monotonic()
        try:
            return self._sent(client, method, url, **options)
        except httpx.HTTPError as error:
            self.retried.append(f"{method} {url}: {error!r}")
        while True:
            try:
                return self._sent(client, method, url, **options)
            except httpx.HTTPError:
                if time.monotonic() - started >= self._retry_s:
                    raise
                time.sleep(0.1)
            finally:
                self.longest_s = max(self.longest_s, time.monotonic() - started)

    @staticmethod
    def _sent(client: httpx.Client, method: str, url: str, **options: Any) -> dict[str, Any]:
        response = client.request(method, url, **options)
        if response.status_code in (503, 504):
            raise httpx.HTTPError(f"{response.status_code} {response.text}")
        assert response.status_code == httpx.codes.OK, f"{response.status_code} {response.text}"
        return dict(response.json())


def require_found(url: str, changes: dict[str, int]) -> None:
    """Every acknowledged item is found."""
    assert changes
    with httpx.Client(base_url=url, timeout=60) as client:
        wait_for(lambda: client.get("/readyz").json().get("last_change", 0) >= max(changes.values()))
        for item_id in changes:
            assert client.get(f"/v1/items/{item_id}/similar").status_code == httpx.codes.OK, item_id
