"""Routes of probes: whether the gateway runs, and whether it can answer queries."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from raysys.artifacts import require_same_space
from raysys.artifacts.served import ServedPair
from raysys.errors import ClusterError
from raysys.serve.gateway_state import gateway_state
from raysys.serve.schemas import ReadyResponse

READY_TIMEOUT_S = 2.0  # for which a probe waits for replicas

router = APIRouter()


@router.get("/healthz")
async def healthz() -> dict[str, str]:
    """The gateway is running."""
    return {"status": "alive"}


@router.get("/readyz")
async def readyz() -> ReadyResponse:
    """Encoder and index have answered one query each and belong to the same embedding space; else 503."""
    state = gateway_state()

    async def ready(pair: ServedPair) -> ReadyResponse:
        index = await state.index_info(pair)
        if pair.encoder_uri is not None:
            encoder = await state.vectors.info(pair)
            require_same_space("the encoder", encoder.space_id, "the index", index.space_id)
        return ReadyResponse(
            status="ready",
            space_id=index.space_id,
            index_version=index.index_version,
            num_items=index.num_items,
            last_change=index.last_change,
            has_encoder=pair.encoder_uri is not None,
        )

    try:
        async with asyncio.timeout(READY_TIMEOUT_S):
            return await state.with_active(ready)
    except TimeoutError as error:
        raise ClusterError("the encoder or the index does not answer; they may still start") from error
