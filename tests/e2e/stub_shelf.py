"""A stub of the service: it answers the requests of the page as the gateway does, with drawn products.

The neighbours of item n are the items n + 1, n + 2, .. (modulo the number of items) with scores 0.98, 0.95,
0.92, .., so that tests can state every card.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from PIL import Image, ImageDraw
from starlette.datastructures import UploadFile

import raysys
from raysys.serve.security_headers import PAGE_POLICY

Json: TypeAlias = dict[str, Any]

PAGE = Path(raysys.__file__).parent / "serve" / "page"
SPACE_ID = "3f9a" * 16
INDEX_VERSION = "2026-01-31.7"
NUM_ITEMS = 30
EXAMPLE_TEXTS = ["Red dress", "長袖ワンピース"]
OPENING_NUMBER = 20

COLOURS = {"Red": "#c8372d", "Blue": "#2f5fa8", "Green": "#3d7a4e", "Black": "#2a2a2c", "Cream": "#e3d6bd"}
NOUNS = ("shirt", "dress", "bag")
SPECIAL_TITLES = {
    3: "<script>document.title = 'taken'</script> & <b>bold</b> shirt",
    4: "ネイビー 長袖ワンピース 綿100% 春夏コレクション 未使用に近い美品 送料無料",
    8: "long" * 1000,
    9: "\u202ereversed \u2067shirt",
}
# URLs and markup must not change what these mean.
SPECIAL_IDS = {6: "../a b/?c#d%2F&e=1+1;'\"", 7: "..", 8: "<b>" + "x" * 297, 9: "商品/👗\u202e"}


@dataclass
class StubShelf:
    """The URL of the stub, the behaviour that a test sets, and the uploads that it received."""

    url: str = ""
    failures: list[Response] = field(default_factory=list)  # responses of the next searches
    delayed_texts: dict[str, threading.Event] = field(
        default_factory=dict
    )  # text -> set to send its response
    uploads: list[bytes] = field(default_factory=list)
    examples: Json | None = None  # instead of the usual texts and item
    has_encoder: bool = True
    token: str | None = None  # required by the API and the photos

    def reset(self) -> None:
        """Restore the initial state, before a test."""
        self.failures.clear()
        self.delayed_texts.clear()
        self.uploads.clear()
        self.examples = None
        self.has_encoder = True
        self.token = None

    def fail_next(self, status: int, code: str, message: str, retry_after_s: int | None = None) -> None:
        """Make the next search fail with this error."""
        headers = {} if retry_after_s is None else {"Retry-After": str(retry_after_s)}
        self.failures.append(error_response(status, code, message, headers))


@contextmanager
def open_shelf() -> Iterator[StubShelf]:
    """A stub that runs on a free loopback port in its own thread."""
    shelf = StubShelf()
    listener = socket.create_server(("127.0.0.1", 0))
    shelf.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(build_app(shelf), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield shelf
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listener.close()


def build_app(shelf: StubShelf) -> FastAPI:
    """The routes that the page uses."""

    def require_token(request: Request) -> None:
        is_open = request.url.path in ("/", "/readyz") or request.url.path.startswith("/page/")
        given = request.headers.get("authorization")
        if shelf.token is not None and not is_open and given != f"Bearer {shelf.token}":
            raise PermissionError

    app = FastAPI(dependencies=[Depends(require_token)])

    @app.exception_handler(PermissionError)
    async def unauthorized(_: Request, __: Exception) -> Response:
        return error_response(401, "unauthorized", "a token is required", {"WWW-Authenticate": "Bearer"})

    items = [item_of(number) for number in range(NUM_ITEMS)]
    items[10]["image_url"] = f"{shelf.url.replace('127.0.0.1', 'localhost')}/images/10.png"  # another origin

    @app.get("/")
    def index() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/page/{name}")
    def asset(name: str) -> FileResponse:
        return FileResponse(PAGE / name)

    @app.get("/images/{number}.png")
    def image(number: int) -> Response:
        return Response(photo_of(number), media_type="image/png")

    @app.get("/readyz")
    def ready() -> Json:
        return {
            "status": "ready",
            "space_id": SPACE_ID,
            "index_version": INDEX_VERSION,
            "num_items": 2980,
            "has_encoder": shelf.has_encoder,
        }

    @app.get("/v1/items")
    def sample(limit: int, seed: int) -> Json:
        return {"items": after(items, seed, limit)}

    @app.get("/v1/examples")
    def examples() -> Json:
        return shelf.examples or {"texts": EXAMPLE_TEXTS, "item": items[OPENING_NUMBER]}

    @app.get("/v1/attributes")
    def attributes() -> Json:
        return {"index_version": INDEX_VERSION, "attributes": attributes_of(items)}

    @app.get("/v1/items/{item_id:path}/similar")
    def similar(item_id: str, k: int, filter: str = "{}", max_per: str = "{}") -> Response:
        if shelf.failures:
            return shelf.failures.pop(0)
        number = next((n for n, item in enumerate(items) if item["item_id"] == item_id), None)
        if number is None:
            return error_response(404, "not_found", f"no item {item_id}", {})
        others = after(items, number + 1, len(items) - 1)
        return search_response(shown(others, k, json.loads(filter), json.loads(max_per)), query=items[number])

    @app.post("/v1/search")
    async def search(request: Request) -> Response:
        if shelf.failures:
            return shelf.failures.pop(0)
        if request.headers["content-type"].startswith("multipart/"):
            async with request.form() as form:
                image = form["image"]
                assert isinstance(image, UploadFile)
                shelf.uploads.append(await image.read())
                limits = [json.loads(str(form.get(name, "{}"))) for name in ("filter", "max_per")]
                return search_response(shown(items, int(str(form["k"])), *limits))
        body = await request.json()
        if body["text"] in shelf.delayed_texts:
            await asyncio.to_thread(shelf.delayed_texts[body["text"]].wait, 10)
        found = [item for item in items if body["text"] in str(item["title"])]
        return search_response(shown(found, body["k"], body.get("filter", {}), body.get("max_per", {})))

    return app


def search_response(neighbours: list[Json], query: Json | None = None) -> Response:
    scored = [item | {"score": 0.98 - 0.03 * position} for position, item in enumerate(neighbours)]
    body = {"exposure_id": "e1", "arm": "control", "space_id": SPACE_ID, "index_version": INDEX_VERSION}
    return JSONResponse(body | ({"query": query} if query else {}) | {"items": scored})


def error_response(status: int, code: str, message: str, headers: dict[str, str]) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, headers)


def after(items: list[Json], start: int, number: int) -> list[Json]:
    """`number` items from `start`, modulo the number of items."""
    return [items[(start + step) % len(items)] for step in range(number)]


def shown(items: list[Json], k: int, where: Json, max_per: Json) -> list[Json]:
    """The first `k` items that pass a filter of `in`, `gte` and `lte`, and of which few share a value."""
    counts: Counter[tuple[str, Any]] = Counter()
    kept = []
    for item in items:
        values = item["attributes"]
        is_met = all(
            values[name] in condition.get("in", [values[name]])
            and condition.get("gte", values[name]) <= values[name] <= condition.get("lte", values[name])
            for name, condition in where.items()
        )
        keys = [(name, values[name]) for name in max_per]
        if is_met and all(counts[key] < max_per[key[0]] for key in keys):
            counts.update(keys)
            kept.append(item)
    return kept[:k]


def attributes_of(items: list[Json]) -> Json:
    """The response to GET /v1/attributes."""
    summaries: Json = {}
    for name in ("category", "is_new", "seller"):
        counts = Counter(item["attributes"][name] for item in items)
        values = [{"value": value, "count": count} for value, count in counts.most_common()]
        kind = "boolean" if name == "is_new" else "text"
        summaries[name] = {"kind": kind, "values": values, "num_values": len(values)}
    prices = [item["attributes"]["price"] for item in items]
    return summaries | {
        "price": {"kind": "number", "min": min(prices), "max": max(prices)},
        "sku": {"kind": "text"},
    }


def item_of(number: int) -> Json:
    colour, noun = colour_and_noun(number)
    attributes = {
        "category": f"fashion/{noun}",
        "seller": f"c{number % 5:02}",
        "price": 1000 + 234 * number,
        "is_new": number % 4 == 0,
        "sku": f"sku-{number}",
    }
    return {
        "item_id": SPECIAL_IDS.get(number, f"item-{number:02}"),
        "title": SPECIAL_TITLES.get(number, f"{colour} {noun}"),
        "attributes": attributes,
        "image_url": f"/images/{number}.png",
    }


@cache
def photo_of(number: int) -> bytes:
    """A PNG of a drawn garment on a plain background, 192 by 256 pixels."""
    colour, noun = colour_and_noun(number)
    photo = Image.new("RGB", (192, 256), (236 - number, 232, 226))
    draw = ImageDraw.Draw(photo)
    outline = {
        "shirt": [
            (60, 60),
            (132, 60),
            (172, 100),
            (150, 124),
            (136, 108),
            (136, 200),
            (56, 200),
            (56, 108),
            (42, 124),
            (20, 100),
        ],
        "dress": [(74, 44), (118, 44), (124, 110), (160, 216), (32, 216), (68, 110)],
        "bag": [(44, 110), (148, 110), (160, 206), (32, 206)],
    }[noun]
    if noun == "bag":
        draw.arc((64, 60, 128, 160), 180, 360, COLOURS[colour], width=8)
    draw.polygon(outline, COLOURS[colour])
    encoded = io.BytesIO()
    photo.save(encoded, "PNG")
    return encoded.getvalue()


def colour_and_noun(number: int) -> tuple[str, str]:
    return list(COLOURS)[number % len(COLOURS)], NOUNS[number // len(COLOURS) % len(NOUNS)]
