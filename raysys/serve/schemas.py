"""Request bodies, responses and errors of the HTTP API."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from raysys.columns import Attributes
from raysys.errors import InputError


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SearchRequest(_Request):
    """`POST /v1/search` as JSON: exactly one of text, image_base64, or vector with its space_id."""

    text: Annotated[str, Field(max_length=1000)] | None = None
    image_base64: str | None = None
    vector: list[float] | None = None
    space_id: str | None = None
    k: int | None = None
    filter: dict[str, Any] | None = None
    unit: str | None = None
    """The experiment unit, for example a user id."""


class EmbedRequest(_Request):
    """`POST /v1/embed`: at most 64 texts and photos together."""

    texts: list[Annotated[str, Field(max_length=1000)]] = []
    images_base64: list[str] = []


class ItemResponse(BaseModel):
    """An item of the index."""

    item_id: str
    title: str
    attributes: Attributes
    image_url: str


class NeighbourResponse(ItemResponse):
    """A similar item; `score` is the cosine with the query."""

    score: float


class SearchResponse(BaseModel):
    """The response to every search."""

    exposure_id: str
    arm: str
    space_id: str
    index_version: str
    query: ItemResponse | None = None
    items: list[NeighbourResponse]


class EmbedResponse(BaseModel):
    """Vectors in the order of the request: texts, then photos."""

    space_id: str
    dimensions: int
    vectors: list[list[float]]


class ErrorDetail(BaseModel):
    """A stable code, and a message of one line."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """The response to every failed request."""

    error: ErrorDetail


def parse_body(model: type[BaseModel], data: bytes) -> Any:
    """The JSON body as `model`.

    Raises: InputError of one line that names the field.
    """
    try:
        return model.model_validate_json(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise InputError(f"{field}: {first['msg'].lower()}") from error


def parse_json_field(name: str, text: str | None) -> Any:
    """The value of a JSON text, or None if it is empty. Raises: InputError."""
    if not text:
        return None
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{name}: not JSON ({error})") from error


def decode_base64(name: str, text: str) -> bytes:
    """The bytes of a base64 field. Raises: InputError."""
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{name}: not base64 ({error})") from error
