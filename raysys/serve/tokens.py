"""Bearer tokens of the HTTP API: their file, their scopes, and the access that a request has.

The file holds SHA-256 hashes only. Tokens are 256 random bits, so a hash without salt cannot be reversed.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import secrets
from dataclasses import dataclass
from typing import Annotated, Literal, TypeAlias

import pydantic
import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from raysys import storage
from raysys.config.schema import ServeConfig
from raysys.errors import Forbidden, InputError, Unauthorized

Scope: TypeAlias = Literal["read", "write", "admin"]
SCOPES: tuple[Scope, ...] = ("read", "write", "admin")
"""Each scope includes those before it."""

_Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Token(BaseModel):
    """An entry of `serve.tokens_file`; the name appears in logs, the token nowhere."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: _Name
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    scopes: Annotated[tuple[Scope, ...], Field(min_length=1)]


_TOKENS: TypeAdapter[tuple[Token, ...]] = TypeAdapter(Annotated[tuple[Token, ...], Field(min_length=1)])


@dataclass(frozen=True)
class Access:
    """The tokens of a service, and the scope of requests without one (None: they are refused)."""

    tokens: tuple[Token, ...] = ()
    anonymous: Scope | None = None

    def authorize(self, authorization: str | None, scope: Scope) -> str | None:
        """The name of the token in an Authorization header, or None for an anonymous request.

        Raises: Unauthorized without a token, unless anonymous requests have the scope, and for an unknown
        token; Forbidden if the scopes of the token do not include `scope`.
        """
        kind, _, presented = (authorization or "").partition(" ")
        if kind.lower() != "bearer":
            if self.anonymous is None or not _includes(self.anonymous, scope):
                raise Unauthorized(
                    f"authorization: a token with the scope '{scope}' is required, got none; "
                    "send the header 'Authorization: Bearer TOKEN'"
                )
            return None
        token = self._token_of(presented.strip())
        if token is None:
            raise Unauthorized("authorization: the token is unknown; ask the operator for another one")
        if not any(_includes(each, scope) for each in token.scopes):
            raise Forbidden(
                f"authorization: the scope '{scope}' is required, token '{token.name}' has "
                f"{', '.join(token.scopes)}; use another token"
            )
        return token.name

    def _token_of(self, presented: str) -> Token | None:
        digest = hashlib.sha256(presented.encode()).hexdigest()
        # Every hash is compared, so that the duration does not depend on the position of the match.
        matches = [token for token in self.tokens if hmac.compare_digest(token.sha256, digest)]
        return matches[0] if matches else None


def new_token(name: str, scope: Scope) -> tuple[str, Token]:
    """A random token and its entry for `serve.tokens_file`. Raises: InputError for an invalid name."""
    text = f"raysys_{secrets.token_urlsafe(32)}"
    digest = hashlib.sha256(text.encode()).hexdigest()
    try:
        return text, Token(name=name, sha256=digest, scopes=(scope,))
    except pydantic.ValidationError as error:
        raise InputError(
            f"--new-token: a name of 1 to 64 letters, digits, '.', '_' and '-' is required, got '{name}'"
        ) from error


def as_yaml(token: Token) -> str:
    """The entry as one line of a YAML list, to append to `serve.tokens_file`."""
    return f"- {{name: {token.name}, sha256: '{token.sha256}', scopes: [{', '.join(token.scopes)}]}}"


def access_of(section: ServeConfig) -> Access:
    """The access that a configuration grants.

    Raises: InputError for an invalid tokens file, and for an address that others can reach without tokens and
    without `allow_anonymous`; MissingError if the file does not exist.
    """
    tokens = () if section.tokens_file is None else _read_tokens(section.tokens_file)
    anonymous = section.allow_anonymous
    if anonymous is None and not tokens:
        if not _is_loopback(section.host):
            raise InputError(
                f"serve.host {section.host}: others can reach this address, so tokens are required; set "
                "serve.tokens_file (raysys serve CONFIG --new-token NAME makes a token), or "
                "serve.allow_anonymous=read behind a gateway of your own"
            )
        anonymous = "admin"
    return Access(tokens, anonymous)


def _read_tokens(uri: str) -> tuple[Token, ...]:
    remedy = "raysys serve CONFIG --new-token NAME prints an entry"
    try:
        tokens = _TOKENS.validate_python(yaml.safe_load(storage.read_bytes(storage.absolute(uri))))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        # The message of the parser would quote lines of the file.
        raise InputError(f"serve.tokens_file {uri}: not valid YAML; {remedy}") from error
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "file"
        raise InputError(f"serve.tokens_file {uri}: {place}: {first['msg'].lower()}; {remedy}") from error
    names = [token.name for token in tokens]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"serve.tokens_file {uri}: '{name}' is listed twice; rename one of them")
    return tokens


def _includes(held: Scope, required: Scope) -> bool:
    return SCOPES.index(held) >= SCOPES.index(required)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
