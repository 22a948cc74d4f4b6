"""Routes of the page, of its files, and of the OpenAPI schema."""

from __future__ import annotations

import importlib.resources
from typing import Any

from fastapi import APIRouter, Request, Response

from raysys.errors import MissingError
from raysys.serve.openapi import openapi_schema

_PAGE_TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}

router = APIRouter(include_in_schema=False)


@router.get("/")
async def page() -> Response:
    return _page_file("index.html")


@router.get("/page/{name}")
async def page_file(name: str) -> Response:
    return _page_file(name)


@router.get("/openapi.json")
async def openapi(request: Request) -> dict[str, Any]:
    return openapi_schema(request.app)


def _page_file(name: str) -> Response:
    suffix = name.rpartition(".")[2]
    path = importlib.resources.files("raysys.serve") / "page" / name
    if "/" in name or suffix not in _PAGE_TYPES or not path.is_file():
        raise MissingError(f"page/{name}: no such file")
    return Response(path.read_bytes(), media_type=f"{_PAGE_TYPES[suffix]}; charset=utf-8")
