"""`raysys demo`: every stage on a drawn catalogue, then real queries over HTTP and the page."""

from __future__ import annotations

import time
from typing import Any, TextIO
from urllib.parse import quote

import httpx

from raysys.config import Config
from raysys.config.schema import DrawnCatalog
from raysys.errors import ClusterError
from raysys.evaluate.report import NEXT_COMMANDS
from raysys.pipeline import STAGES, run_stages
from raysys.serve import app
from raysys.terminal import print_line
from raysys.tracking.logs import log

_TIMEOUT_S = 30.0
_NEW_ITEM = "just-listed"


def run(config: Config, *, exits: bool, out: TextIO) -> None:
    """Run every stage, serve the result and query it; then serve until Ctrl-C, or return if `exits`."""
    started = time.monotonic()
    if isinstance(config.catalog, DrawnCatalog):
        num_items = f"{config.catalog.num_items:,}"
        log.info("     demo  a drawn catalogue: %s photos with titles in English and Japanese", num_items)
    report = list(run_stages(config, list(STAGES)))[-1]
    with app.served(config) as address:
        _query(address)
        log.info("   report  %s/report.html", report.uri)
        log.info("     page  %s   (%.0f s since the start)", address, time.monotonic() - started)
        log.info("     next  your own catalogue, with the column names of your table in the copy:")
        for command in NEXT_COMMANDS:
            log.info("     next  $ %s", command)
        print_line(address, out)
        if not exits:
            log.info("Press Ctrl-C to stop.")
            app.wait_for_stop()


def _query(address: str) -> None:
    """Query the service as a shop would: neighbours of an item, of a photo and of words, and a change."""
    with httpx.Client(base_url=address, timeout=_TIMEOUT_S) as client:
        ready = _json(client.get("/readyz"))
        examples = _json(client.get("/v1/examples"))
        item = examples["item"]
        photo = client.get(item["image_url"]).content
        similar = f"/v1/items/{quote(item['item_id'], safe='')}/similar"
        responses = {
            f"item: {item['title']}": client.get(similar, params={"k": 3}),
            "photo of this item": client.post(
                "/v1/search", files={"image": ("photo.jpg", photo)}, data={"k": "3"}
            ),
        }
        for text in examples["texts"]:
            responses[f"text: {text}"] = client.post("/v1/search", json={"text": text, "k": 3})
        log.info("    serve  %s items, space %s", f"{ready['num_items']:,}", ready["space_id"][:12])
        for query, response in responses.items():
            titles = [f"{item['title']} ({item['score']:.2f})" for item in _json(response)["items"]]
            log.info("    query  %s  ->  %s", query, "  |  ".join(titles))
        _change(client, photo, item["title"])


def _change(client: httpx.Client, photo: bytes, title: str) -> None:
    """List an item and remove it again, as a seller would, and tell how soon searches followed."""
    url, form = f"/v1/items/{_NEW_ITEM}", {"image": ("photo.jpg", photo)}
    for what, request in (
        ("put", client.build_request("PUT", url, files=form, data={"title": title})),
        ("deleted", client.build_request("DELETE", url)),
    ):
        change = _json(client.send(request))["change"]
        durable = time.monotonic()
        while _json(client.get("/readyz"))["last_change"] < change:
            if time.monotonic() - durable > _TIMEOUT_S:
                raise ClusterError(f"serve: change {change} was not applied within {_TIMEOUT_S:.0f} s")
            time.sleep(0.01)
        seconds = time.monotonic() - durable
        found = _json(client.post("/v1/search", files=form, data={"k": "5"}))["items"]
        is_found = _NEW_ITEM in [item["item_id"] for item in found]
        log.info(
            "   change  item %s %s: %s after %.2f s",
            _NEW_ITEM,
            what,
            "found" if is_found else "no longer found",
            seconds,
        )


def _json(response: httpx.Response) -> Any:
    if response.status_code != httpx.codes.OK:
        raise ClusterError(f"{response.request.url}: status {response.status_code}: {response.text[:200]}")
    return response.json()
