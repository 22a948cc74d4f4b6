"""The calls that read: searches, items, attributes, photos and embeddings.

The docstrings are those of the methods of `Client` and `AsyncClient`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from pydantic import BaseModel

from raysys.client.call import Call, parse_as, path_of, post, to_json
from raysys.client.photos import Photo, as_base64
from raysys.client.responses import Response
from raysys.errors import InputError
from raysys.serve.item_urls import item_url
from raysys.serve.schemas import (
    AttributeResponse,
    AttributesResponse,
    EmbedResponse,
    ItemResponse,
    ReadyResponse,
    SearchResponse,
)
from raysys.types import Embeddings


class _ItemsResponse(BaseModel):
    items: list[ItemResponse]


def ready() -> Call[ReadyResponse]:
    """The space id, the index version and the number of items.

    Raises: ServiceUnavailable while the service is not ready.
    """
    return Call("GET", "/readyz", parse_as(ReadyResponse))


def items(limit: int = 24, seed: int = 0) -> Call[list[ItemResponse]]:
    """`limit` random items of the index, 1 to 100; equal seeds give equal items."""
    parse = parse_as(_ItemsResponse)
    return Call("GET", path_of("/v1/items", limit=limit, seed=seed), lambda response: parse(response).items)


def attributes() -> Call[dict[str, AttributeResponse]]:
    """The attributes of the items by name, for `where`: frequent values of texts, bounds of numbers."""
    parse = parse_as(AttributesResponse)
    return Call("GET", "/v1/attributes", lambda response: parse(response).attributes)


def photo(item_id: str) -> Call[bytes]:
    """The photo file of an item. Raises: MissingError."""
    return Call("GET", _item_path(item_id, "photo"), _parse_photo)


def similar(
    item_id: str,
    *,
    k: int | None = None,
    where: Mapping[str, Any] | None = None,
    unit: str | None = None,
    include_group: bool = False,
    max_per: Mapping[str, int] | None = None,
) -> Call[SearchResponse]:
    """The `k` nearest items of an indexed item, best first, without the item itself.

    Without `k`, the service decides. `where` filters as in `raysys.Index.search`:
    `{"category": {"in": ["shoes"]}, "price": {"lte": 20}}`. `unit` is the id of a user or session, for
    experiments. `include_group` also returns listings of the same thing. `max_per` limits the items with the
    same value of an attribute: `{"seller": 2}`.
    Raises: MissingError if the item is not indexed, InputError for an invalid filter.
    """
    path = _item_path(
        item_id,
        "similar",
        k=k,
        unit=unit,
        filter=None if where is None else to_json(where),
        include_group="true" if include_group else None,
        max_per=None if max_per is None else to_json(max_per),
    )
    return Call("GET", path, parse_as(SearchResponse))


def search(
    vector: Embeddings | None = None,
    *,
    text: str | None = None,
    image: Photo | None = None,
    k: int | None = None,
    where: Mapping[str, Any] | None = None,
    unit: str | None = None,
    include_group: bool = False,
    max_per: Mapping[str, int] | None = None,
) -> Call[SearchResponse]:
    """The `k` nearest items of one vector, text or photo, best first; for the other arguments see `similar`.

    A photo is a path or URI, the bytes of a file, or a PIL image. A vector is one row of `raysys.Embeddings`,
    which have their space id.
    Raises: SpaceMismatch for a vector of another embedding space, InputError for an invalid filter,
    UnreadableImage, NoEncoder if the service can embed neither photos nor texts.
    """
    if sum(query is not None for query in (vector, text, image)) != 1:
        raise InputError("search: exactly one of a vector, text= and image= is required")
    body = {
        **({} if vector is None else _vector_fields(vector)),
        "text": text,
        "image_base64": None if image is None else as_base64(image),
        "k": k,
        "filter": where,
        "unit": unit,
        "include_group": True if include_group else None,
        "max_per": max_per,
    }
    return post("/v1/search", body, parse_as(SearchResponse))


def embed(texts: Sequence[str] = (), images: Sequence[Photo] = ()) -> Call[Embeddings]:
    """L2-normalised vectors, one row each: of the texts, then of the photos; at most 64 in total.

    Raises: UnreadableImage, InputError for no or too many inputs, NoEncoder.
    """
    if isinstance(texts, str) or isinstance(images, str | bytes):
        raise InputError("embed: texts and images are lists; write texts=[..], images=[..]")
    num_rows = len(texts) + len(images)

    def parse(response: Response) -> Embeddings:
        embedded = EmbedResponse.model_validate_json(response.body)
        array = np.asarray(embedded.vectors, np.float32)
        if array.shape != (num_rows, embedded.dimensions):
            raise ValueError(f"vectors of shape {array.shape}, not {(num_rows, embedded.dimensions)}")
        return Embeddings(array, embedded.space_id)

    body = {"texts": list(texts), "images_base64": [as_base64(image) for image in images]}
    return post("/v1/embed", body, parse)


def _vector_fields(embeddings: Embeddings) -> dict[str, Any]:
    if not isinstance(embeddings, Embeddings):
        raise InputError(
            f"search: a vector is raysys.Embeddings with a space id, got {type(embeddings).__name__}; "
            "write text=.. or image=.. for other queries"
        )
    if len(embeddings) != 1:
        raise InputError(f"search: one vector a call, got {len(embeddings)}; search with each row by itself")
    return {"vector": embeddings.array[0].tolist(), "space_id": embeddings.space_id}


def _item_path(item_id: str, resource: str, **parameters: str | int | None) -> str:
    try:
        return path_of(item_url(item_id, resource), **parameters)
    except UnicodeEncodeError as error:
        raise InputError(f"item_id, unit: characters that UTF-8 cannot encode ({error.reason})") from error


def _parse_photo(response: Response) -> bytes:
    if not response.content_type.startswith("image/") and response.content_type != "application/octet-stream":
        raise ValueError(f"content type '{response.content_type}'")
    return response.body
