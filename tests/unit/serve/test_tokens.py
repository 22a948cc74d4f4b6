"""Bearer tokens: every route declares its scope, and requests without that scope are refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from raysys import cli
from raysys.config.schema import ServeConfig
from raysys.errors import InputError
from raysys.serve.app import build
from raysys.serve.gateway import app
from raysys.serve.scopes import ROUTE_SCOPES
from raysys.serve.tokens import SCOPES, Access, Scope, Token, access_of, as_yaml, new_token
from tests.unit.serve.conftest import SPACE_ID, Service

REMEDY = "raysys serve CONFIG --new-token NAME prints an entry"


def token(name: str, *scopes: Scope) -> Token:
    """An entry for the token `secret-NAME`."""
    digest = hashlib.sha256(f"secret-{name}".encode()).hexdigest()
    return Token(name=name, sha256=digest, scopes=scopes)


ACCESS = Access(tokens=(token("reader", "read"), token("writer", "write"), token("owner", "admin")))


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer secret-{name}"}


@pytest.fixture
def closed(serve_with: Callable[..., Service]) -> Service:
    return serve_with(access=ACCESS)


def served_routes() -> set[tuple[str, str]]:
    """Method and path of every route of the gateway that the OpenAPI schema or the page has."""
    paths = {(method.upper(), path) for path, methods in app.openapi()["paths"].items() for method in methods}
    return {*paths, ("GET", "/"), ("GET", "/page/{name}")}


def test_every_route_declares_its_scope() -> None:
    assert served_routes() - set(ROUTE_SCOPES) == set()


def test_only_the_page_and_the_probes_need_no_token(closed: Service) -> None:
    for method, path in served_routes():
        status = closed.request(
            method, path.replace("{item_id}", "m1").replace("{name}", "page.js")
        ).status_code
        is_open = path in ("/", "/page/{name}", "/healthz", "/readyz")
        assert status == (200 if is_open else 401), (method, path)


def test_undeclared_route_requires_the_admin_scope(closed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(ROUTE_SCOPES, ("GET", "/v1/items"))
    assert closed.get("/v1/items", headers=bearer("writer")).status_code == 403
    assert closed.get("/v1/items", headers=bearer("owner")).status_code == 200


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer secret-nobody", "secret-reader", "Basic secret-reader", "Bearer secret-reader x",
     f"Bearer {ACCESS.tokens[0].sha256}", "Bearer " + "x" * 5000],
)  # fmt: skip
def test_request_without_a_known_token_is_unauthorized(closed: Service, authorization: str) -> None:
    response = closed.post("/v1/search", headers={"Authorization": authorization}, content=b"{")
    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"] == "Bearer"
    error = response.json()["error"]
    assert error["code"] == "unauthorized"
    assert "secret" not in error["message"]


def test_unauthorized_message_says_what_to_send(closed: Service) -> None:
    assert closed.get("/v1/items").json()["error"]["message"] == (
        "authorization: a token with the scope 'read' is required, got none; "
        "send the header 'Authorization: Bearer TOKEN'"
    )


def test_known_token_is_accepted_in_any_case_of_the_scheme(closed: Service) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert (
            closed.get("/v1/items", headers={"Authorization": f"{scheme} secret-reader"}).status_code == 200
        )


def test_scope_includes_those_before_it() -> None:
    for held, name in enumerate(("reader", "writer", "owner")):
        for required, scope in enumerate(SCOPES):
            if required <= held:
                assert ACCESS.authorize(f"Bearer secret-{name}", scope) == name
            else:
                with pytest.raises(InputError, match=f"the scope '{scope}' is required, token '{name}' has"):
                    ACCESS.authorize(f"Bearer secret-{name}", scope)


def test_missing_scope_is_forbidden(
    serve_with: Callable[..., Service], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ROUTE_SCOPES, ("POST", "/v1/search"), "write")
    service = serve_with(access=ACCESS)
    query = {"vector": [1, 0, 0, 0], "space_id": SPACE_ID}
    response = service.post("/v1/search", json=query, headers=bearer("reader"))
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "forbidden"
    assert service.post("/v1/search", json=query, headers=bearer("writer")).status_code == 200


def test_anonymous_scope_applies_to_requests_without_a_token_only(serve_with: Callable[..., Service]) -> None:
    service = serve_with(access=Access(ACCESS.tokens, anonymous="read"))
    assert service.get("/v1/items").status_code == 200
    assert service.get("/v1/items", headers={"Authorization": "Bearer wrong"}).status_code == 401
    with pytest.raises(InputError, match="a token with the scope 'write' is required"):
        Access(ACCESS.tokens, anonymous="read").authorize(None, "write")


def test_photos_of_a_closed_service_stay_out_of_shared_caches(
    closed: Service, serve_with: Callable[..., Service]
) -> None:
    assert (
        closed.get("/v1/items/m1/photo", headers=bearer("reader"))
        .headers["Cache-Control"]
        .startswith("private")
    )
    assert serve_with().get("/v1/items/m1/photo").headers["Cache-Control"].startswith("public")


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "localhost", "127.9.9.9"])
def test_loopback_address_needs_no_tokens(host: str) -> None:
    assert access_of(ServeConfig(host=host)) == Access(anonymous="admin")


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.3", "shop.example.com", ""])
def test_other_address_needs_tokens_or_anonymous_access(host: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        access_of(ServeConfig(host=host))
    assert str(caught.value) == (
        f"serve.host {host}: others can reach this address, so tokens are required; set serve.tokens_file "
        "(raysys serve CONFIG --new-token NAME makes a token), or serve.allow_anonymous=read behind a "
        "gateway of your own"
    )
    assert access_of(ServeConfig(host=host, allow_anonymous="read")) == Access(anonymous="read")
    path = write(tmp_path, as_yaml(ACCESS.tokens[0]))
    assert access_of(ServeConfig(host=host, tokens_file=path)) == Access(ACCESS.tokens[:1])


def test_service_that_others_can_reach_does_not_start_without_tokens(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"root: {tmp_path / 'root'}\n")
    assert cli.main(["serve", str(config), "serve.host=0.0.0.0"]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("raysys: serve.host 0.0.0.0: others can reach this address")


def test_kubernetes_requires_tokens_whatever_the_host_of_the_configuration(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"root: {tmp_path / 'root'}\nserve: {{host: 127.0.0.1}}\n")
    with pytest.raises(InputError, match="tokens are required"):
        build({"config": str(config)})


def test_tokens_are_required_also_on_loopback_once_there_are_some(tmp_path: Path) -> None:
    path = write(tmp_path, json.dumps([each.model_dump() for each in ACCESS.tokens]))
    assert access_of(ServeConfig(tokens_file=path)) == ACCESS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "file: input should be a valid tuple"),
        ("[]", "file: tuple should have at least 1 item"),
        ("- {name: a, sha256: secret}", "0.sha256: string should match pattern"),
        ("- raysys_secret", "0: input should be a valid dictionary"),
        ("secret: [", "not valid YAML"),
        (as_yaml(token("a", "read")).replace("read", "reed"), "0.scopes.0: input should be 'read', 'write' or 'admin'"),
        (as_yaml(token("a", "read")).replace("read", ""), "0.scopes: tuple should have at least 1 item"),
        (f"{as_yaml(token('a', 'read'))}\n{as_yaml(token('a', 'write'))}", "'a' is listed twice"),
    ],
)  # fmt: skip
def test_invalid_tokens_file_is_an_error_that_quotes_nothing(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(InputError) as caught:
        access_of(ServeConfig(tokens_file=path))
    assert str(caught.value).startswith(f"serve.tokens_file {path}: {message}")
    assert "secret" not in str(caught.value)


def test_new_token_is_printed_once_and_its_entry_accepts_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"root: {tmp_path / 'root'}\n")
    assert cli.main(["serve", str(config), "--new-token", "shop", "--scope", "write"]) == 0
    captured = capsys.readouterr()
    text = captured.err.split()[-1]
    assert text.startswith("raysys_")
    assert text not in captured.out
    [entry] = yaml.safe_load(captured.out)
    assert Access((Token(**entry),)).authorize(f"Bearer {text}", "write") == "shop"


def test_tokens_differ_and_a_bad_name_is_an_error() -> None:
    assert new_token("a", "read")[0] != new_token("a", "read")[0]
    with pytest.raises(InputError, match="--new-token: a name of 1 to 64 letters, .* got 'a b'"):
        new_token("a b", "read")


def write(folder: Path, text: str) -> str:
    path = folder / "tokens.yaml"
    path.write_text(text)
    return str(path)
