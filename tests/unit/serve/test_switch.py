"""A new encoder and its index replace the old pair: no request fails, none joins two spaces, and back again."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest

from raysys.artifacts.served import read_served
from raysys.errors import GenerationGone
from raysys.serve.index_service import IndexService, IndexSettings
from raysys.serve.versions import Versions, pair_to_start_with, published
from tests.factories import photo, tiny_bundle
from tests.unit.serve.conftest import ITEM_IDS, photos
from tests.unit.serve.shop import Client, Shop

T = TypeVar("T")
COLOURS = [photo((0, 250, 40 * number)) for number in range(4)]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return Shop(tmp_path, monkeypatch)


async def while_searching(client: Client, work: Callable[[], Awaitable[T]]) -> tuple[T, set[tuple[str, str]]]:
    """Search before, during and after the work; its result, and the space and version of every response."""
    seen: list[tuple[str, str]] = []

    async def search() -> None:
        for image in itertools.cycle(photos()):
            body = await client.ok("POST", "/v1/search", files={"image": image}, data={"k": "1"})
            assert body["items"][0]["score"] == pytest.approx(1.0, abs=1e-4)  # both are of one space
            seen.append((body["space_id"], body["index_version"]))
            body = await client.ok("GET", "/v1/items/m1/similar")
            seen.append((body["space_id"], body["index_version"]))
            await asyncio.sleep(0.01)  # leaves the CPU to the work

    async def has_seen(num: int) -> None:
        while len(seen) < num:
            assert not any(search.done() for search in searches), seen
            await asyncio.sleep(0.01)

    searches = [asyncio.create_task(search()) for _ in range(2)]
    await has_seen(2)
    result = await work()
    await has_seen(len(seen) + 5)  # of which four may have begun before the end of the work
    for task in searches:
        task.cancel()
    await asyncio.wait(searches)
    assert all(task.cancelled() for task in searches)
    return result, set(seen)


def test_requests_during_a_switch_and_a_rollback_use_one_pair_each(shop: Shop) -> None:
    async def run() -> None:
        old = shop.publish(1)
        async with shop.serving() as client:
            before = await client.ready()
            new = shop.publish(2)
            assert await client.ready() == before  # published is not served
            done, seen = await while_searching(client, client.switch)
            after = await client.ready()
            assert (before["space_id"], after["space_id"]) == (old, new)
            assert (done["before"]["generation"], done["after"]["generation"]) == (1, 2)
            assert after["index_version"].startswith(done["after"]["index_version"])
            assert seen == {(body["space_id"], body["index_version"]) for body in (before, after)}
            _, seen = await while_searching(client, client.rollback)
            assert await client.ready() == before
            assert seen == {(body["space_id"], body["index_version"]) for body in (before, after)}
            await client.rollback()  # of the rollback
            assert await client.ready() == after

    asyncio.run(run())


def test_switch_without_a_new_publication_does_nothing(shop: Shop) -> None:
    async def run() -> None:
        shop.publish(1)
        async with shop.serving() as client:
            done = await client.switch()
            assert done["before"] == done["after"]
            response = await client.http.post("/v1/admin/rollback")
            assert (response.status_code, response.json()["error"]["code"]) == (404, "not_found")

    asyncio.run(run())


def damage_a_file(shop: Shop) -> None:
    shop.publish(2)
    [file] = [path for path in shop.root.glob("indexes/shop/version-*/*.faiss") if is_newest(path.parent)]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def damage_weights(shop: Shop) -> None:
    shop.publish(2)
    pair = published(shop.config, 2)  # the file of the version before is in use, by memory map
    file = Path(str(pair.encoder_uri), "model.safetensors")
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


def publish_other_vectors(shop: Shop) -> None:
    """The vectors of an encoder that is not the one of the space that the index names."""
    claimed = shop.publish(2)
    other = tiny_bundle(shop.root / "other", ["a cup", "a hat"], seed=3)
    shop.publish_index(other, claimed=claimed)


def publish_only_the_encoder(shop: Shop) -> None:
    tiny_bundle(shop.root / "encoders" / "shop", ["a cup"], seed=2)


def is_newest(version: Path) -> bool:
    return version.name in (version.parent / "manifest.json").read_text()


@pytest.mark.parametrize(
    ("publish", "reason"),
    [
        (damage_a_file, "SHA-256"),
        (damage_weights, "space"),
        (publish_other_vectors, "differs from the stored one"),
        (publish_only_the_encoder, "cannot be compared"),
    ],
)
def test_pair_that_fails_a_check_is_refused_and_the_old_one_serves_on(
    shop: Shop, publish: Callable[[Shop], None], reason: str
) -> None:
    async def run() -> None:
        shop.publish(1)
        async with shop.serving() as client:
            before = await client.ready()
            await asyncio.to_thread(publish, shop)

            async def refused() -> Any:
                return await client.http.post("/v1/admin/switch")

            response, seen = await while_searching(client, refused)
            error = response.json()["error"]
            assert (response.status_code, error["code"]) == (409, "switch_refused")
            assert reason in error["message"]
            assert f"index {before['index_version'].split('.')[0]} serves on" in error["message"]
            assert seen == {(before["space_id"], before["index_version"])}
            assert await client.ready() == before
            served = read_served(shop.place)
            assert served is not None
            assert (served.active.generation, served.previous) == (1, None)
            shop.publish(4)
            assert (await client.switch())["after"]["generation"] == 2

    asyncio.run(run())


def test_items_put_before_during_and_after_a_switch_are_found_in_both_spaces(shop: Shop) -> None:
    async def run() -> None:
        shop.publish(1)
        async with shop.serving(has_store=True) as client:
            await client.put("before the build", COLOURS[0])
            shop.publish(2, with_changes=True)  # the index knows of the change, but has no vector of it
            await client.put("after the build", COLOURS[1])
            await client.ok("DELETE", "/v1/items/m1")
            for encoder in client.encoders:
                encoder.may_load.clear()
            switch = asyncio.create_task(client.switch())
            await asyncio.sleep(0)
            await client.put("while it loads", COLOURS[2])
            for encoder in client.encoders:
                encoder.may_load.set()
            await switch
            await client.put("after the switch", COLOURS[3])
            names = ("before the build", "after the build", "while it loads", "after the switch")
            for turn in (None, client.rollback, client.rollback):
                if turn is not None:
                    await turn()
                for name, image in zip(names, COLOURS, strict=True):
                    await client.until_found(name, image)
                assert (await client.http.get("/v1/items/m1/similar")).status_code == 404
                assert (await client.ready())["num_items"] == len(ITEM_IDS) - 1 + len(names)

    asyncio.run(run())


def test_upsert_that_a_switch_overtakes_is_found_in_both_spaces(shop: Shop) -> None:
    async def run() -> None:
        shop.publish(1)
        async with shop.serving(has_store=True) as client:
            shop.publish(2)

            async def switch() -> None:
                for encoder in client.encoders:
                    encoder.after_next_photo = None
                await client.coordinator.switch()

            for encoder in client.encoders:
                encoder.after_next_photo = switch
            await client.put("overtaken", COLOURS[0])  # its vector is of the old space when it is written
            assert (await client.coordinator.versions()).active.generation == 2
            await client.until_found("overtaken", COLOURS[0])
            await client.rollback()
            await client.until_found("overtaken", COLOURS[0])

    asyncio.run(run())


@pytest.mark.parametrize("num_partitions", [0, 2])  # 0: the gateway searches itself
def test_all_that_search_are_switched_with_their_changes(shop: Shop, num_partitions: int) -> None:
    async def run() -> None:
        shop.num_files = 2
        old = shop.publish(1)
        async with shop.serving(has_store=True, num_partitions=num_partitions) as client:
            await client.put("new", COLOURS[0])
            await client.until_found("new", COLOURS[0])
            assert (await client.ready())["space_id"] == old
            new = shop.publish(2)
            await client.switch()
            assert (await client.ready())["space_id"] == new
            await client.until_found("new", COLOURS[0])
            await client.rollback()
            assert (await client.ready())["space_id"] == old
            assert (await client.ids_like(COLOURS[0]))[0] == "new"

    asyncio.run(run())


def test_replica_that_starts_after_a_switch_has_both_pairs(shop: Shop) -> None:
    async def run() -> None:
        shop.publish(1)
        initial = pair_to_start_with(shop.config)
        async with shop.serving() as client:
            new = shop.publish(2)
            await client.switch()
            replica = IndexService(initial, shop.place, IndexSettings(None, 4, 256))
            assert (await replica.info(2)).space_id == new != (await replica.info(1)).space_id
            with pytest.raises(GenerationGone, match="generation 3"):
                await replica.info(3)
            shop.publish(3)
            await client.switch()  # which the new replica did not hear of
            assert (await replica.info(3)).index_version == (await client.ready())["index_version"]

    asyncio.run(run())


def test_gateway_that_hears_of_no_switch_tries_again_with_the_active_pair(shop: Shop) -> None:
    async def run() -> None:
        shop.publish(1)
        async with shop.serving() as client:

            async def never(known: Versions) -> Versions:
                await asyncio.Event().wait()
                return known

            client.coordinator.watch = never
            before = await client.ready()
            shop.publish(2)
            await client.coordinator.switch()
            assert await client.ready() == before  # the replicas still have it
            new = shop.publish(3)
            await client.coordinator.switch()
            assert (await client.ready())["space_id"] == new

    asyncio.run(run())


def test_only_one_switch_at_a_time_and_it_ends_without_its_caller(shop: Shop) -> None:
    async def run() -> None:
        shop.publish(1)
        async with shop.serving() as client:
            new = shop.publish(2)
            client.encoders[0].may_load.clear()
            caller = asyncio.create_task(client.switch())
            while (await client.http.post("/v1/admin/rollback")).status_code != 409:
                await asyncio.sleep(0)
            caller.cancel()
            client.encoders[0].may_load.set()
            while (await client.ready())["space_id"] != new:
                await asyncio.sleep(0.01)

    asyncio.run(run())


def test_restart_serves_the_last_switch_not_what_is_published(shop: Shop) -> None:
    async def run() -> None:
        spaces = [shop.publish(1)]
        async with shop.serving() as client:
            spaces.append(shop.publish(2))
        async with shop.serving() as client:  # never switched
            assert (await client.ready())["space_id"] == spaces[1]
            spaces.append(shop.publish(3))
            await client.switch()
        for seed in (4, 5, 6):
            shop.publish(seed)
        async with shop.serving() as client:
            assert (await client.ready())["space_id"] == spaces[2]
            await client.rollback()
            assert (await client.ready())["space_id"] == spaces[1]
            versions = await client.ok("GET", "/v1/admin/versions")
            assert (versions["active"]["space_id"], versions["previous"]["space_id"]) == (
                spaces[1],
                spaces[2],
            )

    asyncio.run(run())
