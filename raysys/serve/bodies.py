"""Query strings, and bodies: size limits, JSON, multipart forms, base64. Every fault is an InputError."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeVar

import pydantic
import pydantic_core
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.types import Message

from raysys.config.schema import ServeConfig
from raysys.errors import InputError, TooLarge
from raysys.serve.schemas import ItemFields, SearchRequest

Parameters = TypeVar("Parameters", bound=BaseModel)
_OTHER_FIELDS_BYTES = 1_000_000  # of a body, beside its photo
_MAX_FORM_FIELDS = 16
_MAX_FORM_FILES = 4  # more than one, so that the error of a second photo names the field
_MAX_FILTER_ATTRIBUTES = 32
_MAX_FILTER_VALUES = 10_000


class UnsupportedType(InputError):
    """A content type that the route does not read."""

    http_status = 415
    code = "unsupported_media_type"


class BodyTimeout(InputError):
    """A body that did not arrive in time; its connection would hold a slot of the gateway."""

    http_status = 408
    code = "body_timeout"


def query_parameters(model: type[Parameters], request: Request) -> Parameters:
    """The query string as `model`; of a repeated parameter the last value. Raises: InputError."""
    parameters: Parameters = _validated(lambda: model.model_validate(dict(request.query_params)))
    return parameters


async def read_search(request: Request, section: ServeConfig) -> tuple[SearchRequest, bytes | None]:
    """The body of a search and its photo, if there is one.

    Raises: InputError unless there is exactly one query, TooLarge, BodyTimeout.
    """
    content_type = _content_type(request)
    photo: bytes | None = None
    queries = []
    if content_type == "multipart/form-data":
        fields, photo = await _read_form(request, section)
        for name in ("filter", "max_per"):
            fields[name] = parse_json_field(name, fields.get(name))
        # The values of a form are texts, so `k` is converted: the validation is not strict.
        body: SearchRequest = _validated(
            lambda: SearchRequest.model_validate_json(json.dumps(fields), strict=False)
        )
        queries.append("image")
    elif content_type == "application/json":
        body = await read_json(SearchRequest, request, section)
        if body.image_base64 is not None:
            photo = decode_photo("image_base64", body.image_base64, section.max_image_megabytes)
    else:
        raise _wrong_type(content_type)
    queries += [name for name in ("text", "image_base64", "vector") if getattr(body, name) is not None]
    if len(queries) != 1:
        raise InputError(
            f"search: exactly one of text, image, vector is required, got {', '.join(queries) or 'none'}"
        )
    _check_filter_size(body.filter or {})
    return body, photo


async def read_item(request: Request, section: ServeConfig) -> tuple[ItemFields, bytes | None]:
    """The body of an upsert, JSON or a form, and its photo if it has one.

    Raises: InputError that names the field, TooLarge, BodyTimeout.
    """
    content_type = _content_type(request)
    if content_type == "multipart/form-data":
        fields, photo = await _read_form(request, section)
        fields["attributes"] = parse_json_field("attributes", fields.get("attributes")) or {}
        return _validated(lambda: ItemFields.model_validate(fields)), photo
    if content_type != "application/json":
        raise _wrong_type(content_type)
    item: ItemFields = await read_json(ItemFields, request, section)
    return item, item_photo(item, "image_base64", section)


def item_photo(item: ItemFields, name: str, section: ServeConfig) -> bytes | None:
    """The photo of an item in JSON, whose field is named `name` in messages. Raises: InputError, TooLarge."""
    if item.image_base64 is None:
        return None
    return decode_photo(name, item.image_base64, section.max_image_megabytes)


async def read_json(model: type[BaseModel], request: Request, section: ServeConfig) -> Any:
    """The JSON body as `model`. Raises: InputError that names the field, TooLarge, BodyTimeout."""
    if (content_type := _content_type(request)) != "application/json":
        raise UnsupportedType(f"content-type: application/json is required, got '{content_type}'")
    # Base64 adds one third.
    max_bytes = _bytes(section.max_image_megabytes * 4 / 3) + _OTHER_FIELDS_BYTES
    async with _within(section.body_timeout_s):
        data = await _limited(request, max_bytes).body()
    return _validated(lambda: model.model_validate_json(data))


def parse_json_field(name: str, text: str | None) -> Any:
    """The value of a JSON text, or None if it is empty. Raises: InputError."""
    if not text:
        return None
    try:
        return pydantic_core.from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise InputError(f"{name}: not JSON ({error})") from error


def decode_photo(name: str, text: str, max_photo_megabytes: float) -> bytes:
    """The photo of a base64 field. Raises: InputError, TooLarge."""
    try:
        photo = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"{name}: not base64 ({error})") from error
    _check_size(name, len(photo), _bytes(max_photo_megabytes))
    return photo


async def _read_form(request: Request, section: ServeConfig) -> tuple[dict[str, Any], bytes]:
    """The other fields of a form, and its photo."""
    max_photo_bytes = _bytes(section.max_image_megabytes)
    limited = _limited(request, max_photo_bytes + _OTHER_FIELDS_BYTES)
    parser = limited.form(max_files=_MAX_FORM_FILES, max_fields=_MAX_FORM_FIELDS)
    async with contextlib.AsyncExitStack() as stack:
        async with _within(section.body_timeout_s):
            form = await stack.enter_async_context(parser)
        uploads = form.getlist("image")
        if len(uploads) != 1 or not isinstance(upload := uploads[0], UploadFile):
            raise InputError("image: a file is required in the multipart field 'image', exactly one")
        photo = await upload.read()
        fields: dict[str, Any] = {name: str(value) for name, value in form.items() if name != "image"}
    _check_size("image", len(photo), max_photo_bytes)
    return fields, photo


def _wrong_type(content_type: str) -> UnsupportedType:
    return UnsupportedType(
        f"content-type: multipart/form-data or application/json is required, got '{content_type}'"
    )


@contextlib.asynccontextmanager
async def _within(timeout_s: float) -> AsyncIterator[None]:
    """A deadline for receiving a body, because a slow sender occupies a slot of the gateway."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise BodyTimeout(
            f"body: did not arrive within {timeout_s:g} s; send a smaller photo, or set serve.body_timeout_s"
        ) from error


def _limited(request: Request, max_bytes: int) -> Request:
    """The request, which raises TooLarge once more than `max_bytes` of its body are announced or received."""
    if request.query_params:
        raise InputError(f"{next(iter(request.query_params))}: is in the URL; give all fields in the body")
    announced = request.headers.get("content-length", "")
    _check_size("body", int(announced) if announced.isdecimal() else 0, max_bytes)
    num_bytes = 0

    async def receive() -> Message:
        nonlocal num_bytes
        message = await request.receive()
        num_bytes += len(message.get("body", b""))
        _check_size("body", num_bytes, max_bytes)
        return message

    return Request(request.scope, receive)


def _check_size(name: str, num_bytes: int, max_bytes: int) -> None:
    if num_bytes > max_bytes:
        raise TooLarge(
            f"{name}: {num_bytes:,} bytes, at most {max_bytes:,} are accepted; "
            "send a smaller photo, or set serve.max_image_megabytes"
        )


def _check_filter_size(where: dict[str, Any]) -> None:
    """A search compares every item with every value of a filter. Raises: InputError."""
    if len(where) > _MAX_FILTER_ATTRIBUTES:
        raise InputError(
            f"filter: at most {_MAX_FILTER_ATTRIBUTES} attributes are accepted, got {len(where)}"
        )
    conditions = [each for each in where.values() if isinstance(each, dict)]
    lists = [values for each in conditions for values in each.values() if isinstance(values, list)]
    if (num_values := sum(map(len, lists))) > _MAX_FILTER_VALUES:
        raise InputError(f"filter: at most {_MAX_FILTER_VALUES} values are accepted, got {num_values}")


def _validated(validate: Callable[[], Any]) -> Any:
    try:
        return validate()
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "body"
        raise InputError(f"{field}: {first['msg'].lower()}") from error


def _content_type(request: Request) -> str:
    return request.headers.get("content-type", "").split(";")[0].strip().lower()


def _bytes(megabytes: float) -> int:
    return round(megabytes * 1e6)
