"""Routes of items: random ones, one to start from, their attributes and photos."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response

from raysys.index.items import IndexedItem
from raysys.serve.conditional import is_known, not_modified, photo_tag
from raysys.serve.deadline import current_deadline
from raysys.serve.gateway_state import gateway_state
from raysys.serve.item_responses import item_response
from raysys.serve.media_types import media_type_of
from raysys.serve.schemas import (
    AttributeResponse,
    AttributesResponse,
    ExamplesResponse,
    ItemResponse,
    ItemsParameters,
)

_PHOTO_AGE_S = 60  # for which caches may use a photo without asking

router = APIRouter()


@router.get("/v1/items")
async def items(parameters: Annotated[ItemsParameters, Query()]) -> dict[str, list[ItemResponse]]:
    """Random items; equal seeds give equal items."""
    state = gateway_state()
    sample: list[IndexedItem] = await state.with_active(
        lambda pair: state.index.sample(pair.generation, parameters.limit, parameters.seed)
    )
    return {"items": [item_response(item, state.section.image_url) for item in sample]}


@router.get("/v1/examples")
async def examples() -> ExamplesResponse:
    """Texts and an item to start from, the same ones for the same index."""
    state = gateway_state()
    item: IndexedItem | None = await state.with_active(lambda pair: state.index.opening_item(pair.generation))
    has_encoder = state.versions.known.active.encoder_uri is not None
    return ExamplesResponse(
        texts=list(state.section.example_queries) if has_encoder else [],
        item=None if item is None else item_response(item, state.section.image_url),
    )


@router.get("/v1/attributes", response_model_exclude_none=True)
async def attributes() -> AttributesResponse:
    """The attributes of the items: frequent values of texts, bounds of numbers."""
    state = gateway_state()
    version, summaries = await state.with_active(lambda pair: state.index.attributes(pair.generation))
    found = {
        name: AttributeResponse.model_validate(summary, from_attributes=True)
        for name, summary in summaries.items()
    }
    return AttributesResponse(index_version=version, attributes=found)


@router.get("/v1/items/{item_id:item_id}/photo")
async def photo(item_id: str, if_none_match: Annotated[str | None, Header()] = None) -> Response:
    """The photo of an item; 304 if its ETag is in If-None-Match."""
    state = gateway_state()
    data: bytes = await state.with_active(
        lambda pair: state.index.photo(pair.generation, item_id, current_deadline())
    )
    # Shared caches would give the photo to requests without a token.
    visibility = "private" if state.access.anonymous is None else "public"
    # A change can replace the photo at any time.
    headers = {"ETag": photo_tag(data), "Cache-Control": f"{visibility}, max-age={_PHOTO_AGE_S}"}
    if is_known(headers["ETag"], if_none_match):
        return not_modified(headers)
    return Response(data, media_type=media_type_of(data), headers=headers)
