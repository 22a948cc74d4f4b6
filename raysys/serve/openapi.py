"""The OpenAPI schema at /openapi.json: what FastAPI cannot derive from the routes.

The routes read their bodies themselves, to limit them while they arrive. Their bodies, tokens and errors are
declared here.
"""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel

from raysys.serve.schemas import ChangesRequest, EmbedRequest, ErrorResponse, ItemFields, SearchRequest
from raysys.serve.scopes import ROUTE_SCOPES

_FILTER_EXAMPLE = {"category": {"in": ["fashion/tops"]}, "price": {"lte": 3000}}
_ERRORS = {
    400: "A malformed multipart body, or a malformed URL.",
    401: "No token, or an unknown one.",
    403: "The scopes of the token do not include that of the route.",
    404: "No such item.",
    408: "The body did not arrive in time.",
    409: "A vector of another space, no encoder, no database for changes, or a switch that was refused.",
    413: "A body or a photo that is too large.",
    415: "A content type that the route does not read, or an unreadable photo.",
    422: "A field is missing, unknown or invalid.",
    500: "Unexpected error; see the log of the service.",
    503: "Too many requests are waiting (with Retry-After), or a store or database does not answer.",
    504: "No answer before the deadline of the request.",
}
_EVERY_ROUTE = (500, 503, 504)
_WITH_TOKEN = (401, 403)
_WITH_BODY = (400, 408, 409, 413, 415, 422)

# (method, path template) -> statuses beside those of every route.
_ROUTE_ERRORS: dict[tuple[str, str], tuple[int, ...]] = {
    ("GET", "/readyz"): (409,),
    ("GET", "/v1/items"): (422,),
    ("GET", "/v1/items/{item_id}/similar"): (404, 422),
    ("GET", "/v1/items/{item_id}/photo"): (404,),
    ("POST", "/v1/search"): _WITH_BODY,
    ("POST", "/v1/embed"): _WITH_BODY,
    ("PUT", "/v1/items/{item_id}"): _WITH_BODY,
    ("DELETE", "/v1/items/{item_id}"): (409, 422),
    ("POST", "/v1/changes"): _WITH_BODY,
    ("POST", "/v1/admin/switch"): (409,),
    ("POST", "/v1/admin/rollback"): (404, 409),
}
_WITH_ETAG = frozenset({"/v1/items/{item_id}/similar", "/v1/items/{item_id}/photo"})
_SEARCH_EXAMPLES = {
    "text": {"value": {"text": "red dress", "k": 12, "filter": _FILTER_EXAMPLE}},
    "photo": {"value": {"image_base64": "/9j/4AAQSkZJRg==", "k": 12}},
    "vector": {"value": {"vector": [0.6, -0.8], "space_id": "a0f0b9db1fde16", "k": 12}},
}
_EMBED_EXAMPLES = {"texts": {"value": {"texts": ["red dress", "赤 ワンピース"]}}}
_SEARCH_FORM = {
    "type": "object",
    "required": ["image"],
    "additionalProperties": False,
    "properties": {
        "image": {"type": "string", "format": "binary", "description": "The photo, as a file."},
        "k": {"type": "integer", "minimum": 1, "description": "Number of neighbours."},
        "filter": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "Conditions as a JSON object.",
        },
        "max_per": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "How many items may share a value of an attribute, as a JSON object.",
        },
        "unit": {"type": "string", "description": "The experiment unit, for example a user id."},
    },
}
_ITEM = {"title": "red dress", "image_base64": "/9j/4AAQSkZJRg==", "attributes": {"price": 3000}}
_ITEM_FORM = {
    "type": "object",
    "required": ["image", "title"],
    "additionalProperties": False,
    "properties": {
        "image": {"type": "string", "format": "binary", "description": "The photo, as a file."},
        "title": {"type": "string", "maxLength": 1000},
        "attributes": {
            "type": "string",
            "contentMediaType": "application/json",
            "description": "Names and values as a JSON object.",
        },
        "group": {"type": "string", "description": "Equal for listings of the same thing."},
    },
}
_BODIES: dict[tuple[str, str], dict[str, Any]] = {
    ("POST", "/v1/search"): {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/SearchRequest"},
            "examples": _SEARCH_EXAMPLES,
        },
        "multipart/form-data": {"schema": _SEARCH_FORM},
    },
    ("PUT", "/v1/items/{item_id}"): {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/ItemFields"},
            "examples": {"photo": {"value": _ITEM}},
        },
        "multipart/form-data": {"schema": _ITEM_FORM},
    },
    ("POST", "/v1/changes"): {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/ChangesRequest"},
            "examples": {
                "both": {
                    "value": {
                        "changes": [
                            {"kind": "upsert", "item_id": "m1", **_ITEM},
                            {"kind": "delete", "item_id": "m2"},
                        ]
                    }
                }
            },
        },
    },
    ("POST", "/v1/embed"): {
        "application/json": {
            "schema": {"$ref": "#/components/schemas/EmbedRequest"},
            "examples": _EMBED_EXAMPLES,
        },
    },
}
_BODY_MODELS: tuple[type[BaseModel], ...] = (
    SearchRequest,
    EmbedRequest,
    ItemFields,
    ChangesRequest,
    ErrorResponse,
)


def openapi_schema(app: FastAPI) -> dict[str, Any]:
    """The schema of the routes with their bodies, tokens and errors."""
    schema = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
    components = schema.setdefault("components", {})
    components["securitySchemes"] = {
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "Not required on a loopback address, nor for the scope `serve.allow_anonymous`.",
        }
    }
    schemas = components.setdefault("schemas", {})
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own format of errors
        schemas.pop(unused, None)
    for model in _BODY_MODELS:
        own = model.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(own.pop("$defs", {}))
        schemas[model.__name__] = own
    for path, methods in schema["paths"].items():
        for method, operation in methods.items():
            _complete((method.upper(), path), operation)
    return schema


def _complete(route: tuple[str, str], operation: dict[str, Any]) -> None:
    scope = ROUTE_SCOPES.get(route, "admin")
    statuses = {*_EVERY_ROUTE, *_ROUTE_ERRORS.get(route, ())}
    if scope is not None:
        # Of type http, a scheme has no scopes in OpenAPI 3.1, but roles may be named.
        operation["security"] = [{"token": [scope]}]
        statuses.update(_WITH_TOKEN)
    if route in _BODIES:
        operation["requestBody"] = {"required": True, "content": _BODIES[route]}
    if route[1].endswith("/photo"):
        operation["responses"]["200"] = {
            "description": "The photo, with the media type of its bytes.",
            "content": {"image/*": {"schema": {"type": "string", "format": "binary"}}},
        }
    if route[0] == "GET" and route[1] in _WITH_ETAG:
        operation["responses"]["304"] = {
            "description": "The response with the ETag in If-None-Match is current."
        }
    operation["responses"].pop("422", None)
    for status in sorted(statuses):
        operation["responses"][str(status)] = {
            "description": _ERRORS[status],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorResponse"}}},
        }
