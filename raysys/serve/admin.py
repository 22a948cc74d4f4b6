"""`raysys serve CONFIG --switch` and `--rollback`: requests to the running service."""

from __future__ import annotations

import os
from typing import Literal

import httpx

from raysys.config.schema import ServeConfig
from raysys.errors import ClusterError, SwitchRefused
from raysys.serve.schemas import SwitchResponse

TOKEN = "RAYSYS_TOKEN"  # the name of an environment variable
_EVERY_ADDRESS = ("0.0.0.0", "::")
_CONNECT_S = 10.0  # the answer itself takes as long as loading an index does


def request_switch(section: ServeConfig, action: Literal["switch", "rollback"]) -> SwitchResponse:
    """Let the service at `serve.host`, `serve.port` do it, and wait until it is done.

    Raises: SwitchRefused if it refuses, ClusterError if it does not answer.
    """
    host = "127.0.0.1" if section.host in _EVERY_ADDRESS else section.host
    address = f"http://{host}:{section.port}"
    token = os.environ.get(TOKEN)
    try:
        response = httpx.post(
            f"{address}/v1/admin/{action}",
            headers={"Authorization": f"Bearer {token}"} if token else {},
            timeout=httpx.Timeout(None, connect=_CONNECT_S),
        )
    except httpx.HTTPError as error:
        raise ClusterError(
            f"{address}: no service answers ({error}); start it, or set its address: serve.host, serve.port"
        ) from error
    if response.status_code != httpx.codes.OK:
        raise SwitchRefused(_message_of(response))
    return SwitchResponse.model_validate_json(response.content)


def summary(switch: SwitchResponse) -> str:
    """One line for the terminal."""
    before, after = switch.before.index_version, switch.after.index_version
    if switch.before == switch.after:
        return f"index {after} is served already: nothing new is published"
    return f"index {before} -> {after}"


def _message_of(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.request.url}: status {response.status_code}; is it the address of the service?"
