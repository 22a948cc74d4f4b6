"""The generations that a replica holds: at most two, the active one and the one before or after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

from raysys.artifacts.served import ServedPair, newest_pair, read_served
from raysys.errors import GenerationGone, RaysysError
from raysys.tracking.logs import log

T = TypeVar("T")


class Generations(Generic[T]):
    """What a replica has loaded, an encoder or an index, by the generation of its pair.

    Generations with the same version share it. `open_version` loads the version of a URI, and `close_version`
    ends what it started. Threads may call all methods.
    """

    def __init__(
        self,
        served_uri: str,
        initial: ServedPair,
        *,
        uri_of: Callable[[ServedPair], str | None],
        open_version: Callable[[str], T],
        close_version: Callable[[T], None] = lambda _: None,
    ) -> None:
        self._served_uri, self._initial, self._uri_of = served_uri, initial, uri_of
        self._open_version, self._close_version = open_version, close_version
        self._lock = threading.Lock()
        self._uris: dict[int, str | None] = {}
        self._opened: dict[str, T] = {}

    def start(self) -> None:
        """Load what is active, and the pair before it if that still exists. Raises: as `open_version`."""
        active = newest_pair(self._served_uri, self._initial)
        self.load(active)
        served = read_served(self._served_uri)
        if served is not None and served.active == active and served.previous is not None:
            try:
                self.load(served.previous)
            except RaysysError as error:
                log.warning("serve: no rollback without loading: %s", error)

    def load(self, pair: ServedPair) -> None:
        """Load a pair beside the others, unless it is loaded. Raises: as `open_version`."""
        uri = self._uri_of(pair)
        with self._lock:
            if uri is not None and uri not in self._opened:
                self._opened[uri] = self._open_version(uri)
            self._uris[pair.generation] = uri

    def keep(self, generations: Collection[int]) -> None:
        """Drop all other generations; requests that are using them are not disturbed."""
        with self._lock:
            self._uris = {number: uri for number, uri in self._uris.items() if number in generations}
            for uri in self._opened.keys() - self._uris.values():
                self._close_version(self._opened.pop(uri))

    async def get(self, generation: int) -> T:
        """What was loaded for a generation; loads it if it is active and this replica does not know it yet.

        Raises: GenerationGone for one that is neither loaded nor active.
        """
        if generation not in self._uris:
            await asyncio.to_thread(self._load_active, generation)
        loaded = self._opened.get(self._uris.get(generation) or "")
        if loaded is None:
            raise _gone(generation)
        return loaded

    def _load_active(self, generation: int) -> None:
        active = newest_pair(self._served_uri, self._initial)
        if active.generation != generation:
            raise _gone(generation)
        self.load(active)


def _gone(generation: int) -> GenerationGone:
    return GenerationGone(f"generation {generation} is no longer served; send the request again")
