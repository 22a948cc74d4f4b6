"""URLs of items: every item id has a URL that decodes to it."""

from __future__ import annotations

from urllib.parse import quote

# Clients remove these segments from a path, also if they are percent-encoded.
_DOT_SEGMENTS = (".", "..")


def photo_url(item_id: str, template: str | None) -> str:
    """The URL of an item's photo, relative to the service without a `template`.

    `template` is `serve.image_url`; the percent-encoded id replaces its `{item_id}`.
    """
    encoded = quote(item_id, safe="")
    if template is not None:
        return template.replace("{item_id}", encoded)
    slash = "%2F" if item_id in _DOT_SEGMENTS else "/"
    return f"/v1/items/{encoded}{slash}photo"
