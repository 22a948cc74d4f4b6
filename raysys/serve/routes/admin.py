"""Routes of administration: which pair of encoder and index is served, and to serve another one."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from raysys.serve.gateway_state import GatewayState, gateway_state
from raysys.serve.schemas import SwitchResponse, VersionsResponse

router = APIRouter()


@router.get("/v1/admin/versions")
async def versions() -> VersionsResponse:
    """Which encoder and index are served, and which were before."""
    return VersionsResponse.model_validate(await gateway_state().coordinator.versions.remote())


@router.post("/v1/admin/switch")
async def switch() -> SwitchResponse:
    """Serve the encoder and the index that are published now, if they pass their checks."""
    state = gateway_state()
    return await _switched(state, state.coordinator.switch)


@router.post("/v1/admin/rollback")
async def rollback() -> SwitchResponse:
    """Serve the pair before the last switch again."""
    state = gateway_state()
    return await _switched(state, state.coordinator.rollback)


async def _switched(state: GatewayState, method: Any) -> SwitchResponse:
    done = SwitchResponse.model_validate(await method.remote())
    await state.versions.asked()  # the next request here uses the new pair
    return done
