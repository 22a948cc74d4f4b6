"""The Python client and the routes of the service agree."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import httpx
import pytest

import raysys
from raysys.errors import InputError, MissingError, NoEncoder, SpaceMismatch
from raysys.serve import gateway
from tests.factories import photo
from tests.unit.serve.conftest import DIMENSIONS, ITEM_IDS, SPACE_ID, Service, photos

T = TypeVar("T")


def with_client(use: Callable[[raysys.AsyncClient], Awaitable[T]]) -> T:
    async def run() -> T:
        transport = httpx.ASGITransport(gateway.app, raise_app_exceptions=False)
        async with raysys.AsyncClient("http://test", transport=transport) as client:
            return await use(client)

    return asyncio.run(run())


def test_every_item_is_found_by_its_id(service: Service) -> None:
    async def use(client: raysys.AsyncClient) -> None:
        for number, item_id in enumerate(ITEM_IDS):
            shelf = await client.similar(item_id, k=3)
            assert shelf.query is not None
            assert (shelf.query.item_id, len(shelf.items)) == (item_id, 3)
            assert await client.photo(item_id) == photos()[number]

    with_client(use)


def test_every_query_is_answered(service: Service) -> None:
    async def use(client: raysys.AsyncClient) -> None:
        state = await client.ready()
        assert (state.space_id, state.num_items, state.has_encoder) == (SPACE_ID, len(ITEM_IDS), True)
        assert {item.item_id for item in await client.items(limit=100)} == set(ITEM_IDS)
        attributes = await client.attributes()
        assert [found.count for found in attributes["category"].values or []] == [23, 23]
        assert (attributes["price"].kind, attributes["price"].min, attributes["price"].max) == (
            "number",
            0,
            45,
        )
        embeddings = await client.embed(["red dress"], [photo("red")])
        assert (embeddings.array.shape, embeddings.space_id) == ((2, DIMENSIONS), SPACE_ID)
        for row, shelf in enumerate(
            [await client.search(text="red dress", k=5), await client.search(image=photo("red"), k=5)]
        ):
            vector = raysys.Embeddings(embeddings.array[row : row + 1], SPACE_ID)
            again = await client.search(vector, k=5)
            assert [item.item_id for item in shelf.items] == [item.item_id for item in again.items]

    with_client(use)


def test_errors_have_the_class_of_their_code(service: Service, serve_with: Callable[..., Service]) -> None:
    async def use(client: raysys.AsyncClient) -> None:
        with pytest.raises(
            MissingError, match=r"GET http://test/v1/items/x%2Fy/similar: item 'x/y' is not in"
        ):
            await client.similar("x/y")
        with pytest.raises(InputError, match="k: must be 1 to 100, got 0"):
            await client.search(text="dress", k=0)
        embeddings = await client.embed(["dress"])
        with pytest.raises(SpaceMismatch, match="embedding space ffffffffffff"):
            await client.search(raysys.Embeddings(embeddings.array, "f" * 64))
        serve_with(has_encoder=False)
        with pytest.raises(NoEncoder, match="cannot be embedded"):
            await client.search(text="dress")

    with_client(use)
