"""A call of the service: a request, and how its response is read."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import numpy as np
from pydantic import BaseModel

from raysys.client.responses import Response
from raysys.errors import InputError

T = TypeVar("T")
ModelT = TypeVar("ModelT", bound=BaseModel)


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how its response is read.

    `parse` receives a response of status 200 and raises ValueError if it is not what the call expects.
    """

    method: str
    path: str
    """Percent-encoded, with the query string, relative to the service."""
    parse: Callable[[Response], T]
    body: bytes | None = None
    """JSON."""


def path_of(path: str, **parameters: str | int | None) -> str:
    """The path with a query string of the parameters that are not None."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{path}?{urlencode(given)}" if given else path


def post(path: str, body: Mapping[str, Any], parse: Callable[[Response], T]) -> Call[T]:
    """A POST with a JSON body of the fields that are not None."""
    given = {name: value for name, value in body.items() if value is not None}
    return Call("POST", path, parse, to_json(given).encode())


def to_json(value: Any) -> str:
    """The value as JSON. Raises: InputError for NaN, infinity, and types that JSON does not have."""
    try:
        return json.dumps(value, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"request: not JSON ({error}); give texts, finite numbers, lists and dicts"
        ) from error


def parse_as(model: type[ModelT]) -> Callable[[Response], ModelT]:
    """Read the body as JSON of a model."""
    return lambda response: model.model_validate_json(response.body)


def _plain(value: Any) -> Any:
    """A number of numpy, or a mapping, as Python's own."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"got {type(value).__name__}")
