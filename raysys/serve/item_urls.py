"""URLs of items: every item id has a URL that decodes to it, and the routes match every one of them."""

from __future__ import annotations

from urllib.parse import quote

from starlette.convertors import Convertor, register_url_convertor

# Clients remove these segments from a path, also if they are percent-encoded.
_DOT_SEGMENTS = (".", "..")


def item_url(item_id: str, resource: str) -> str:
    """The URL of a `resource` of an item (`photo`, `similar`), relative to the service."""
    slash = "%2F" if item_id in _DOT_SEGMENTS else "/"
    return f"/v1/items/{quote(item_id, safe='')}{slash}{resource}"


def photo_url(item_id: str, template: str | None) -> str:
    """The URL of an item's photo, relative to the service without a `template`.

    `template` is `serve.image_url`; the percent-encoded id replaces its `{item_id}`.
    """
    if template is not None:
        return template.replace("{item_id}", quote(item_id, safe=""))
    return item_url(item_id, "photo")


class _ItemIdConvertor(Convertor[str]):
    """Any text: servers decode `%2F` and `%0A` before they match a route, and `path` matches no newline."""

    regex = r"[\s\S]*"

    def convert(self, value: str) -> str:
        """The decoded text of the path is the id."""
        return value

    def to_string(self, value: str) -> str:
        """The same; `photo_url` encodes it."""
        return value


def register_item_ids() -> None:
    """Let routes contain `{item_id:item_id}`; call it before they are declared."""
    register_url_convertor("item_id", _ItemIdConvertor())
