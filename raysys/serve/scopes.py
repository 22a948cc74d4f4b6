"""The scope that each route requires. A route that is missing here requires `admin`, and fails a test."""

from __future__ import annotations

from fastapi import Request

from raysys.serve.gateway_state import gateway_state
from raysys.serve.tokens import Access, Scope

# (method, path template) -> scope; None: no token is required.
ROUTE_SCOPES: dict[tuple[str, str], Scope | None] = {
    ("GET", "/"): None,
    ("GET", "/page/{name}"): None,
    ("GET", "/healthz"): None,
    ("GET", "/readyz"): None,
    ("GET", "/openapi.json"): None,
    ("GET", "/v1/items"): "read",
    ("GET", "/v1/examples"): "read",
    ("GET", "/v1/attributes"): "read",
    ("GET", "/v1/items/{item_id}/similar"): "read",
    ("GET", "/v1/items/{item_id}/photo"): "read",
    ("POST", "/v1/search"): "read",
    ("POST", "/v1/embed"): "read",
    ("POST", "/v1/events"): "read",
    ("PUT", "/v1/items/{item_id}"): "write",
    ("DELETE", "/v1/items/{item_id}"): "write",
    ("POST", "/v1/changes"): "write",
    ("GET", "/v1/admin/versions"): "admin",
    ("POST", "/v1/admin/switch"): "admin",
    ("POST", "/v1/admin/rollback"): "admin",
}


async def authorize(request: Request) -> None:
    """Check the token of a request, and keep its name for the access log. Raises: Unauthorized, Forbidden."""
    request.state.token_name = _token_name(request, gateway_state().access)


def _token_name(request: Request, access: Access) -> str | None:
    """None for an anonymous request, and if the route requires no token."""
    scope = ROUTE_SCOPES.get((request.method, request.scope["route"].path_format), "admin")
    if scope is None:
        return None
    return access.authorize(request.headers.get("authorization"), scope)
