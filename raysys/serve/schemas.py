"""What goes over HTTP: bodies, answers and errors."""

from __future__ import annotations

import base64
import binascii
import json
from typing import Annotated, Any

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from raysys.columns import Attributes
from raysys.errors import InputError


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class SearchBody(_Body):
    """`POST /v1/search` as JSON: exactly one of text, image_base64, or vector with its space_id."""

    text: Annotated[str, Field(max_length=1000)] | None = None
    image_base64: str | None = None
    vector: list[float] | None = None
    space_id: str | None = None
    k: int | None = None
    filter: dict[str, Any] | None = None
    unit: str | None = None
    """Who is asking, for experiments."""


class EmbedBody(_Body):
    """`POST /v1/embed`: photos or titles, at most 64 in all."""

    texts: list[Annotated[str, Field(max_length=1000)]] = []
    images_base64: list[str] = []


class ItemOut(BaseModel):
    """A listing."""

    item_id: str
    title: str
    attributes: Attributes
    image_url: str


class NeighbourOut(ItemOut):
    """A listing that is similar; `score` is the cosine."""

    score: float


class ShelfOut(BaseModel):
    """The answer to every search."""

    exposure_id: str
    arm: str
    space_id: str
    index_version: str
    query: ItemOut | None = None
    items: list[NeighbourOut]


class EmbedOut(BaseModel):
    """Vectors in the order of the request, texts first."""

    space_id: str
    dimensions: int
    vectors: list[list[float]]


class ErrorDetail(BaseModel):
    """What was wrong."""

    code: str
    message: str


class ErrorOut(BaseModel):
    """The answer to every request that failed."""

    error: ErrorDetail


def parse_body(model: type[BaseModel], data: bytes) -> Any:
    """The JSON body as `model`.

    Raises: InputError in one line that names the field.
    """
    try:
        return model.model_validate_json(data)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "body"
        raise InputError(f"{where}: {first['msg'].lower()}") from error


def parse_json_field(name: str, text: str | None) -> Any:
    """A JSON value that came as text, or None. Raises: InputError."""
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
