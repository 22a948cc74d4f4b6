"""More requests than the service works on: it refuses the rest in its format, or searches with less effort."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import httpx
import pytest

from raysys.config.schema import ServeConfig
from tests.e2e.conftest import STOP_TIMEOUT_S, CompletedRun, Served, wait_until_ready
from tests.e2e.small import exported_metrics, free_port, kill_group, start_raysys, wait_for

CLIENTS = 2 * ServeConfig().max_requests
TEXTS = ["a red dress", "赤 ワンピース", "a mug"]
GENEROUS_S = 60.0


async def embed_at_once(url: str) -> list[httpx.Response]:
    """The responses to `CLIENTS` requests that are sent at the same time."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=GENEROUS_S, limits=limits) as client:
        requests = (client.post(f"{url}v1/embed", json={"texts": TEXTS}) for _ in range(CLIENTS))
        return await asyncio.gather(*requests)


def test_requests_beyond_the_limit_are_refused_with_retry_after(served: Served) -> None:
    responses = asyncio.run(embed_at_once(served.url))
    by_status: dict[int, list[httpx.Response]] = {}
    for response in responses:
        by_status.setdefault(response.status_code, []).append(response)
    assert by_status.keys() <= {200, 503, 504}, by_status.keys()  # 504: a slow machine
    assert by_status[200]
    assert by_status[503]
    for response in by_status[200]:
        assert len(response.json()["vectors"]) == len(TEXTS)
    for response in by_status[503]:
        assert response.headers["Retry-After"] == "1"
        assert response.json()["error"]["code"] == "overloaded"
    for response in by_status.get(504, []):
        assert response.json()["error"]["code"] == "deadline_exceeded"

    again = httpx.post(f"{served.url}v1/embed", json={"texts": TEXTS}, timeout=GENEROUS_S)
    assert len(again.json()["vectors"]) == len(TEXTS), again.text
    ready = httpx.get(f"{served.url}readyz", timeout=GENEROUS_S)
    assert ready.json()["status"] == "ready", ready.text

    def is_counted() -> bool:
        lines = exported_metrics(served.pid).splitlines()
        counts = [line for line in lines if line.startswith("ray_serve_num_http_error_requests_total{")]
        return any('error_code="503"' in line for line in counts)

    wait_for(is_counted)


async def similar_at_once(url: str) -> list[httpx.Response]:
    """The responses to queries by item that are sent at the same time."""
    async with httpx.AsyncClient(timeout=GENEROUS_S, limits=httpx.Limits(max_connections=None)) as client:
        items = (await client.get(f"{url}v1/items", params={"limit": 32})).json()["items"]
        urls = [f"{url}v1/items/{item['item_id']}/similar" for item in items]
        return await asyncio.gather(*map(client.get, urls))


@pytest.mark.slow
def test_searches_that_would_wait_have_less_effort_where_configured(
    completed_run: CompletedRun, tmp_path: Path
) -> None:
    port, log_stem = free_port(), tmp_path / "serve"
    url = f"http://127.0.0.1:{port}/"
    settings = ["serve.degraded_search_effort=0.25", "serve.search_threads=1", "serve.max_item_queries=64"]
    process = start_raysys(
        "serve", str(completed_run.config), f"serve.port={port}", *settings, log_stem=log_stem
    )
    try:
        wait_until_ready(url, process, log_stem)
        degraded: list[httpx.Response] = []
        deadline = time.monotonic() + GENEROUS_S
        while not degraded:  # whether a search still runs when the next one comes is up to the machine
            assert time.monotonic() < deadline
            responses = asyncio.run(similar_at_once(url))
            degraded = [response for response in responses if "X-Degraded" in response.headers]
        for response in degraded:
            assert response.json()["items"]
            assert response.headers["Cache-Control"] == "no-store"
            assert "ETag" not in response.headers
        alone = httpx.get(str(degraded[0].url), timeout=GENEROUS_S)
        assert alone.headers["ETag"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(STOP_TIMEOUT_S) == 0
    finally:
        kill_group(process)
