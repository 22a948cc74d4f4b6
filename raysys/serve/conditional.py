"""ETags: a client that has a response already gets 304 instead of it."""

from __future__ import annotations

import hashlib

from fastapi import Response


def shelf_tag(index_version: str, *parameters: object) -> str:
    """The ETag of the neighbours of an item: weak, because each response has an exposure id of its own."""
    content = repr((index_version, *parameters)).encode("utf-8", "surrogatepass")
    return f'W/"{hashlib.sha256(content).hexdigest()[:32]}"'


def photo_tag(photo: bytes) -> str:
    """The ETag of a photo, by its bytes."""
    return f'"{hashlib.sha256(photo).hexdigest()[:32]}"'


def is_known(etag: str, if_none_match: str | None) -> bool:
    """Whether the header If-None-Match names the ETag; weak and strong ones are equal there (RFC 9110)."""
    tags = [tag.strip().removeprefix("W/") for tag in (if_none_match or "").split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


def not_modified(headers: dict[str, str]) -> Response:
    """The response to a client that has this content; `headers` are those of the full response."""
    return Response(status_code=304, headers=headers)
