"""What both clients are made with: the address, the token and the limits."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import httpx

from raysys.client.attempts import Attempts
from raysys.client.call import Call
from raysys.errors import REASON_LENGTH, InputError
from raysys.terminal import printable
from raysys.version import __version__


@dataclass(frozen=True)
class Settings:
    """The valid settings of a client."""

    url: str
    timeout_s: float
    retries: int
    headers: dict[str, str] = field(repr=False)

    @classmethod
    def checked(cls, url: str, token: str | None, timeout_s: float, retries: int) -> Settings:
        """The settings of a client. Raises: InputError, which never quotes the token or a password."""
        if not 0 < timeout_s < math.inf:
            raise InputError(f"timeout_s: a number of seconds above 0 is required, got {timeout_s}")
        if retries < 0:
            raise InputError(f"retries: 0 or more is required, got {retries}")
        headers = {"User-Agent": f"raysys/{__version__}"}
        if token is not None:
            if not token or not all("!" <= character <= "~" for character in token):
                raise InputError("token: is empty, or has spaces or characters that are not ASCII")
            headers["Authorization"] = f"Bearer {token}"
        return cls(_checked_url(url), timeout_s, retries, headers)

    def attempts(self, call: Call[Any]) -> Attempts:
        """The attempts of a call, which begin now."""
        path = call.path.partition("?")[0]
        where = printable(f"{call.method} {self.url.rstrip('/')}{path}", REASON_LENGTH)
        return Attempts(where, self.timeout_s, self.retries)

    def describe(self, name: str) -> str:
        """The `repr` of a client, without the token."""
        return f"{name}({self.url!r}, timeout_s={self.timeout_s:g}, retries={self.retries})"


def _checked_url(url: str) -> str:
    if "@" in url:  # Before it is parsed: an error of httpx may quote a part of the password.
        raise InputError("url: has a user name or a password; give token= instead")
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InputError(f"url: {error}; give an address such as http://127.0.0.1:8000") from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
        raise InputError(f"url: an address such as http://127.0.0.1:8000 is required, got {printable(url)!r}")
    return str(parsed)
