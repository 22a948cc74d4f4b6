"""The Python client on a real service, and on servers that fail in the ways of a network."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import raysys
from raysys.errors import InputError, MissingError, ServiceUnavailable, SpaceMismatch
from tests.e2e.conftest import Served
from tests.e2e.small import stored_vectors


@pytest.fixture(scope="module")
def client(served: Served) -> Iterator[raysys.Client]:
    with raysys.Client(served.url, timeout_s=30) as client:
        yield client


@pytest.fixture(scope="module")
def item_id(client: raysys.Client) -> str:
    return client.items(limit=1, seed=3)[0].item_id


def test_state_and_items(client: raysys.Client) -> None:
    state = client.ready()
    assert (state.status, state.num_items, state.has_encoder) == ("ready", 150, True)
    assert client.items(limit=5, seed=3) == client.items(limit=5, seed=3) != client.items(limit=5, seed=4)


def test_similar_items_meet_the_filter(client: raysys.Client, item_id: str) -> None:
    shelf = client.similar(item_id, k=5, where={"price": {"lte": 3000}}, unit="u1")
    assert (shelf.query and shelf.query.item_id, shelf.arm) == (item_id, "default")
    assert len(shelf.items) == 5
    assert all(int(item.attributes["price"] or 0) <= 3000 for item in shelf.items)


def test_photo_file_image_and_vector_find_the_item(
    client: raysys.Client, item_id: str, served: Served, tmp_path: Path
) -> None:
    photo = client.photo(item_id)
    (tmp_path / "a.jpg").write_bytes(photo)
    vector = stored_vectors(served.root)[item_id].astype(np.float32)
    embeddings = raysys.Embeddings(vector[None], client.ready().space_id)
    with Image.open(io.BytesIO(photo)) as image:
        shelves = [
            client.search(image=photo, k=1),
            client.search(image=tmp_path / "a.jpg", k=1),
            client.search(image=image, k=1),
            client.search(embeddings, k=1),
        ]
    for shelf in shelves:
        assert shelf.items[0].item_id == item_id
        assert shelf.items[0].score == pytest.approx(1, abs=1e-5)
    embedded = client.embed(texts=["red dress"], images=[photo])
    assert embedded.space_id == embeddings.space_id
    np.testing.assert_allclose(embedded.array[1], vector, atol=1e-5)


def test_errors_of_the_service(client: raysys.Client) -> None:
    with pytest.raises(MissingError, match=r"/v1/items/a%2Fb/similar: item 'a/b' is not in the index"):
        client.similar("a/b")
    with pytest.raises(MissingError, match=r"item '\.\.' is not in the index"):
        client.photo("..")
    with pytest.raises(InputError, match="k: must be 1 to 100, got 0"):
        client.search(text="dress", k=0)
    other = raysys.Embeddings(np.ones((1, 16), np.float32) / 4, "f" * 64)
    with pytest.raises(SpaceMismatch, match="embedding space ffffffffffff"):
        client.search(other)


def test_concurrent_searches_of_the_async_client(served: Served, client: raysys.Client, item_id: str) -> None:
    async def search() -> list[list[str]]:
        async with raysys.AsyncClient(served.url, timeout_s=30) as concurrent:
            shelves = await asyncio.gather(*(concurrent.similar(item_id, k=5) for _ in range(8)))
        return [[item.item_id for item in shelf.items] for shelf in shelves]

    expected = [item.item_id for item in client.similar(item_id, k=5).items]
    assert asyncio.run(search()) == [expected] * 8


def test_example_of_the_readme_runs(served: Served) -> None:
    readme = (Path(raysys.__file__).parent / "serve/README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(import raysys.*?)```", readme, flags=re.S)
    names: dict[str, Any] = {}
    with contextlib.redirect_stdout(io.StringIO()) as output:
        exec(example.replace("http://127.0.0.1:8000", served.url), names)
    assert len(names["shelf"].items) == 5
    assert output.getvalue().startswith(names["shelf"].index_version)


def silent(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.recv(1)  # until the client closes


def closing(connection: socket.socket) -> None:
    connection.recv(1 << 16)


def dripping(connection: socket.socket) -> None:
    connection.recv(1 << 16)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")
    with contextlib.suppress(OSError):
        while True:
            connection.sendall(b" ")
            time.sleep(0.02)


@contextlib.contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that treats each connection in this way and then closes it."""

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener is closed
            while True:
                connection, _ = listener.accept()
                with connection, contextlib.suppress(OSError):
                    behave(connection)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def ready_sync(url: str, timeout_s: float) -> object:
    with raysys.Client(url, timeout_s=timeout_s) as client:
        return client.ready()


def ready_async(url: str, timeout_s: float) -> object:
    async def ready() -> object:
        async with raysys.AsyncClient(url, timeout_s=timeout_s) as client:
            return await client.ready()

    return asyncio.run(ready())


@pytest.mark.parametrize("ready", [ready_sync, ready_async])
@pytest.mark.parametrize(
    ("behave", "timeout_s", "message"),
    [
        (silent, 0.5, r"no complete response within 0\.5 s"),
        (dripping, 0.5, r"no complete response within 0\.5 s"),
        (closing, 30, r"no response in 3 attempts \(Server disconnected without sending a response\.\)"),
    ],
)
def test_a_failing_server_is_given_up_in_time(
    ready: Callable[[str, float], object],
    behave: Callable[[socket.socket], None],
    timeout_s: float,
    message: str,
) -> None:
    with server(behave) as url:
        started = time.monotonic()
        with pytest.raises(ServiceUnavailable, match=message):
            ready(url, timeout_s)
        assert time.monotonic() - started < 10  # a second, and what a busy machine adds


@pytest.mark.parametrize("ready", [ready_sync, ready_async])
def test_a_closed_port_is_an_unreachable_service(ready: Callable[[str, float], object]) -> None:
    with pytest.raises(ServiceUnavailable, match=r"http://127\.0\.0\.1:1/readyz: no response in 3 attempts"):
        ready("http://127.0.0.1:1", 30)
