"""The OpenAPI schema describes the routes: generated requests get the responses that it declares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import hypothesis
import hypothesis.strategies as strategies
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from raysys.serve.gateway import app
from raysys.serve.openapi import openapi_schema
from raysys.serve.scopes import ROUTE_SCOPES
from tests.unit.serve.conftest import Service
from tests.unit.serve.test_tokens import ACCESS, bearer

SCHEMA = openapi_schema(app)


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, methods in SCHEMA["paths"].items()
        for method, operation in methods.items()
    ]


@pytest.fixture
def closed(serve_with: Callable[..., Service]) -> Service:
    return serve_with(access=ACCESS, has_store=True)


def test_schema_is_served_without_a_token(closed: Service) -> None:
    assert closed.get("/openapi.json").json()["paths"] == SCHEMA["paths"]


def test_every_error_has_the_common_format() -> None:
    for _, path, operation in operations():
        errors = {status: each for status, each in operation["responses"].items() if int(status) >= 400}
        for status, response in errors.items():
            reference = response["content"]["application/json"]["schema"]["$ref"]
            assert reference == "#/components/schemas/ErrorResponse", (path, status)


def test_routes_declare_their_token_and_both_refusals() -> None:
    for method, path, operation in operations():
        scope = ROUTE_SCOPES[method, path]
        assert operation.get("security") == (None if scope is None else [{"token": [scope]}]), path
        assert ({"401", "403"} <= set(operation["responses"])) is (scope is not None), path


@pytest.mark.parametrize(
    ("method", "path", "has_form"),
    [
        ("POST", "/v1/search", True),
        ("POST", "/v1/embed", False),
        ("PUT", "/v1/items/{item_id}", True),
        ("POST", "/v1/changes", False),
    ],
)
def test_bodies_are_declared_with_examples_that_are_accepted(
    serve_with: Callable[..., Service], method: str, path: str, has_form: bool
) -> None:
    service = serve_with(has_store=True)
    content = SCHEMA["paths"][path][method.lower()]["requestBody"]["content"]
    assert ("multipart/form-data" in content) is has_form
    for name, example in content["application/json"]["examples"].items():
        response = service.request(method, path.replace("{item_id}", "m1"), json=example["value"])
        # The example photos are only a few bytes, and the vector belongs to another space.
        expected = {"photo": 415, "both": 415, "vector": 409}.get(name, 200)
        assert response.status_code == expected, response.text


@pytest.mark.parametrize(("method", "path"), [(method, path) for method, path, _ in operations()])
def test_generated_requests_get_declared_responses(closed: Service, method: str, path: str) -> None:
    check_operation(schemathesis.openapi.from_asgi("/openapi.json", app)[path][method])


def check_operation(operation: Any) -> None:
    """Send valid and invalid requests, and check status, content type and schema of every response."""

    @hypothesis.settings(
        max_examples=20,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(strategies.one_of(*map(operation.as_strategy, schemathesis.GenerationMode)))
    def check(case: Any) -> None:
        # The schema cannot say which photos and vectors are accepted.
        case.call_and_validate(headers=bearer("owner"), excluded_checks=[positive_data_acceptance])

    check()
