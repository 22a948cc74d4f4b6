"""Request bodies, responses and errors of the HTTP API."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from raysys.types import Attributes


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid")


class ItemsParameters(_Request):
    """The query string of `GET /v1/items`."""

    limit: Annotated[int, Field(ge=1, le=100)] = 24
    seed: Annotated[int, Field(ge=0)] = 0


class SimilarParameters(_Request):
    """The query string of `GET /v1/items/{item_id}/similar`; `filter` and `max_per` are JSON."""

    k: int | None = None
    unit: str | None = None
    filter: str | None = None
    max_per: str | None = None
    include_group: bool = False
    """Also items that show the same thing as the query's item, such as its re-listed copies."""


class _JsonRequest(_Request):
    model_config = ConfigDict(strict=True)  # `true` and "1" are not numbers


class SearchRequest(_JsonRequest):
    """`POST /v1/search` as JSON: exactly one of text, image_base64, or vector with its space_id."""

    text: Annotated[str, Field(max_length=1000)] | None = None
    image_base64: str | None = None
    vector: Annotated[list[float], Field(min_length=1, fail_fast=True)] | None = None
    space_id: str | None = None
    k: int | None = None
    filter: dict[str, Any] | None = None
    max_per: dict[str, int] | None = None
    """How many items may share a value of an attribute, for example `{"seller": 2}`."""
    unit: str | None = None
    """The experiment unit, for example a user id."""


class EmbedRequest(_JsonRequest):
    """`POST /v1/embed`: at most 64 texts and photos together."""

    texts: Annotated[list[Annotated[str, Field(max_length=1000)]], Field(fail_fast=True)] = []
    images_base64: Annotated[list[str], Field(fail_fast=True)] = []


class ItemFields(_JsonRequest):
    """`PUT /v1/items/{item_id}` as JSON: an item, and its photo or a vector with its space_id."""

    title: Annotated[str, Field(max_length=1000)]
    attributes: Annotated[dict[str, str | int | float | bool | None], Field(max_length=100)] = {}
    group: Annotated[str, Field(max_length=1000)] = ""
    """Equal for listings of the same thing; empty for an item without copies."""
    image_base64: str | None = None
    vector: Annotated[list[float], Field(min_length=1, fail_fast=True)] | None = None
    space_id: str | None = None


class UpsertRequest(ItemFields):
    """An item that is new, or replaces the item of this id."""

    kind: Literal["upsert"]
    item_id: str


class DeleteRequest(_JsonRequest):
    """An item that is no longer for sale."""

    kind: Literal["delete"]
    item_id: str


class ChangesRequest(_JsonRequest):
    """`POST /v1/changes`: all of them become durable, or none."""

    changes: Annotated[
        list[Annotated[UpsertRequest | DeleteRequest, Field(discriminator="kind")]],
        Field(min_length=1, max_length=64),
    ]


class ChangeResponse(BaseModel):
    """A durable change; `change` is its sequence number, which a change that is sent again keeps."""

    item_id: str
    change: int


class ChangesResponse(BaseModel):
    """Durable changes, in the order of the request."""

    changes: list[ChangeResponse]


class ReadyResponse(BaseModel):
    """The response to `GET /readyz`."""

    status: str
    space_id: str
    index_version: str
    num_items: int
    last_change: int
    """Number of the last change of an item that can be found."""
    has_encoder: bool


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


class ExamplesResponse(BaseModel):
    """Queries to start from."""

    texts: list[str]
    """`serve.example_queries`; none without an encoder."""
    item: ItemResponse | None
    """An item whose neighbours are clear; null if no item of the index has a neighbour."""


class ValueCountResponse(BaseModel):
    """A value of an attribute, and how many items have it."""

    value: bool | str
    count: int


class AttributeResponse(BaseModel):
    """What a filter on an attribute can choose."""

    kind: Literal["text", "number", "boolean"]
    values: list[ValueCountResponse] | None = None
    """At most 50, most frequent first; missing for numbers, and if more than half of the texts differ."""
    num_values: int | None = None
    """The number of different values, if `values` is there."""
    min: int | float | None = None
    max: int | float | None = None


class AttributesResponse(BaseModel):
    """The response to `GET /v1/attributes`: the attributes of the items, by name."""

    index_version: str
    attributes: dict[str, AttributeResponse]


class EmbedResponse(BaseModel):
    """Vectors in the order of the request: texts, then photos."""

    space_id: str
    dimensions: int
    vectors: list[list[float]]


class PairResponse(BaseModel):
    """An encoder and an index that are served together, by the URIs of their exact versions."""

    model_config = ConfigDict(from_attributes=True)

    generation: int
    space_id: str
    index_version: str
    """Without the number of the last change."""
    index_uri: str
    encoder_uri: str | None


class VersionsResponse(BaseModel):
    """`GET /v1/admin/versions`: what is served, and what a rollback would serve."""

    model_config = ConfigDict(from_attributes=True)

    active: PairResponse
    previous: PairResponse | None


class SwitchResponse(BaseModel):
    """A finished switch or rollback; both pairs are equal if there was nothing new."""

    model_config = ConfigDict(from_attributes=True)

    before: PairResponse
    after: PairResponse


class ErrorDetail(BaseModel):
    """A stable code, and a message of one line."""

    code: str
    message: str


class ErrorResponse(BaseModel):
    """The response to every failed request."""

    error: ErrorDetail
