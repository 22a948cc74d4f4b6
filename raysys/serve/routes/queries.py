"""Routes of queries: neighbours of an item, a photo, a text or a vector; vectors of photos and texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Request, Response
from fastapi.routing import APIRoute

from raysys.artifacts.served import ServedPair
from raysys.config.schema import ServeConfig
from raysys.errors import InputError
from raysys.index.shelf import ShelfOptions
from raysys.serve.bodies import decode_photo, parse_json_field, query_parameters, read_json, read_search
from raysys.serve.conditional import is_known, not_modified, shelf_tag
from raysys.serve.deadline import current_deadline
from raysys.serve.gateway_state import gateway_state
from raysys.serve.index_service import IndexInfo, SearchResult
from raysys.serve.item_responses import search_response
from raysys.serve.metrics import timed
from raysys.serve.query_vectors import given_vector
from raysys.serve.schemas import EmbedRequest, EmbedResponse, SearchResponse, SimilarParameters
from raysys.serve.scopes import authorize

# Of neighbours that were searched with less effort: no ETag, because the next search may find others.
_DEGRADED_HEADERS = {"X-Degraded": "search-effort", "Cache-Control": "no-store"}
_MAX_EMBED_INPUTS = 64

router = APIRouter()


async def similar(
    item_id: str,
    parameters: Annotated[SimilarParameters, Query()],
    if_none_match: Annotated[str | None, Header()] = None,
) -> Response:
    """Neighbours of an item, by its stored vector; 304 if they are those of the ETag in If-None-Match."""
    state = gateway_state()
    options = ShelfOptions(
        parse_json_field("filter", parameters.filter),
        parse_json_field("max_per", parameters.max_per),
        parameters.include_group,
    )
    k = _checked_k(parameters.k, state.section)

    def headers(index: IndexInfo) -> dict[str, str]:
        etag = shelf_tag(index.index_version, item_id, k, options, state.section.image_url)
        return {"ETag": etag, "Cache-Control": "private, no-cache"}

    if if_none_match is not None:
        current = headers(await state.with_active(state.index_info))
        if is_known(current["ETag"], if_none_match):
            return not_modified(current)
    with timed("search"):
        result: SearchResult = await state.with_active(
            lambda pair: state.index.similar(pair.generation, item_id, k, options, current_deadline())
        )
    content = search_response(result, state.section.image_url).model_dump_json(exclude_none=True)
    found = _DEGRADED_HEADERS if result.is_degraded else headers(result.index)
    return Response(content, media_type="application/json", headers=found)


async def _answer_item_query(request: Request) -> Response:
    await authorize(request)
    return await similar(
        request.path_params["item_id"],
        query_parameters(SimilarParameters, request),
        request.headers.get("if-none-match"),
    )


class _ItemQueryRoute(APIRoute):
    """FastAPI documents this route. To resolve its parameters, it would take a fifth of a query's time."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        return _answer_item_query


router.add_api_route(
    "/v1/items/{item_id:item_id}/similar",
    similar,
    response_model=SearchResponse,
    route_class_override=_ItemQueryRoute,
)


@router.post("/v1/search", response_model_exclude_none=True)
async def search(request: Request, response: Response) -> SearchResponse:
    """Neighbours of a photo (multipart `image`), or of JSON {text | image_base64 | vector, space_id}."""
    state = gateway_state()
    body, photo = await read_search(request, state.section)
    k = _checked_k(body.k, state.section)
    options = ShelfOptions(body.filter, body.max_per)

    async def found(pair: ServedPair) -> SearchResult:
        if body.vector is not None:
            vector, space_id = given_vector(body.vector, body.space_id)
        elif photo is not None:
            vector, space_id = await state.vectors.of_photo(pair, photo), pair.space_id
        else:
            vector, space_id = await state.vectors.of_text(pair, body.text), pair.space_id
        with timed("search"):
            result: SearchResult = await state.index.nearest(
                pair.generation, vector, space_id, k, options, current_deadline()
            )
        return result

    with state.encoder_place(is_needed=body.vector is None):
        result = await state.with_active(found)
    if result.is_degraded:
        response.headers.update(_DEGRADED_HEADERS)
    return search_response(result, state.section.image_url)


@router.post("/v1/embed")
async def embed(request: Request) -> EmbedResponse:
    """Vectors of texts and photos."""
    state = gateway_state()
    body: EmbedRequest = await read_json(EmbedRequest, request, state.section)
    count = len(body.texts) + len(body.images_base64)
    if not 1 <= count <= _MAX_EMBED_INPUTS:
        raise InputError(f"texts, images_base64: 1 to {_MAX_EMBED_INPUTS} in total, got {count}")
    photos = [
        decode_photo(f"images_base64.{number}", text, state.section.max_image_megabytes)
        for number, text in enumerate(body.images_base64)
    ]

    async def embedded(pair: ServedPair) -> EmbedResponse:
        found = await asyncio.gather(
            *(state.vectors.of_text(pair, text) for text in body.texts),
            *(state.vectors.of_photo(pair, photo) for photo in photos),
        )
        info = await state.vectors.info(pair)
        vectors = [[float(number) for number in vector] for vector in found]
        return EmbedResponse(space_id=info.space_id, dimensions=info.dimensions, vectors=vectors)

    with state.encoder_place(is_needed=True):
        return await state.with_active(embedded)


def _checked_k(k: int | None, section: ServeConfig) -> int:
    k = section.default_k if k is None else k
    if not 1 <= k <= section.max_k:
        raise InputError(f"k: must be 1 to {section.max_k}, got {k}")
    return k
