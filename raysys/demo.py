"""`raysys demo`: the whole path on a drawn catalogue, real queries over HTTP, and the page."""

from __future__ import annotations

import time
from typing import Any, TextIO

import httpx

from raysys.config import Config
from raysys.errors import ClusterError
from raysys.pipeline import STAGES, run_stages
from raysys.serve import app
from raysys.tracking.logs import log

_TIMEOUT_S = 30.0


def run(config: Config, *, ends_by_itself: bool, out: TextIO) -> None:
    """Run every stage, serve the result, query it; then stay until Ctrl-C unless it is to end by itself."""
    started = time.monotonic()
    report = list(run_stages(config, list(STAGES)))[-1]
    with app.served(config) as address:
        _query(address)
        log.info("   report  %s/report.html", report.uri)
        log.info("     page  %s   (%.0f s since the start)", address, time.monotonic() - started)
        print(address, flush=True, file=out)
        if not ends_by_itself:
            log.info("Ctrl-C ends it.")
            app.wait_for_stop()


def _query(address: str) -> None:
    """Ask what a shop would ask: ready, the neighbours of an item, of a photo, of words."""
    with httpx.Client(base_url=address, timeout=_TIMEOUT_S) as client:
        ready = _json(client.get("/readyz"))
        item = _json(client.get("/v1/items", params={"limit": 1}))["items"][0]
        photo = client.get(item["image_url"]).content
        shelves = {
            item["title"]: client.get(f"/v1/items/{item['item_id']}/similar", params={"k": 3}),
            "its photo": client.post("/v1/search", files={"image": ("photo.jpg", photo)}, data={"k": "3"}),
            "red dress": client.post("/v1/search", json={"text": "red dress", "k": 3}),
        }
        log.info("    serve  %s items, space %s", f"{ready['num_items']:,}", ready["space_id"][:12])
        for query, response in shelves.items():
            found = [
                f"{neighbour['title']} ({neighbour['score']:.2f})" for neighbour in _json(response)["items"]
            ]
            log.info("    query  %s  ->  %s", query, "  |  ".join(found))


def _json(response: httpx.Response) -> Any:
    if response.status_code != httpx.codes.OK:
        raise ClusterError(f"{response.request.url}: answered {response.status_code}: {response.text[:200]}")
    return response.json()
