"""The most memory that a process and all that it started held, sampled from outside."""

from __future__ import annotations

import contextlib
import os
import threading
from pathlib import Path
from types import TracebackType

import psutil

# Looking through some ten processes takes about 10 ms of one core.
_EVERY_S = 0.5


class PeakMemory:
    """Watches a process tree from a thread while the block runs.

    `tree_bytes` counts memory that processes share once (PSS; where the system has none, RSS).
    `store_bytes` is Ray's object store: on Linux, what the raylet keeps below `/dev/shm`.
    """

    def __init__(self, pid: int) -> None:
        self.tree_bytes = 0
        self.store_bytes = 0
        self._root = psutil.Process(pid)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        self._thread.join()
        self._look()

    def _watch(self) -> None:
        self._look()
        while not self._is_over.wait(_EVERY_S):
            self._look()

    def _look(self) -> None:
        tree = store = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                tree += _held_bytes(process)
                store += _store_bytes(process) if process.name() == "raylet" else 0
            except (psutil.Error, FileNotFoundError):
                continue  # it has ended meanwhile
        self.tree_bytes, self.store_bytes = max(self.tree_bytes, tree), max(self.store_bytes, store)


def _store_bytes(raylet: psutil.Process) -> int:
    """The object store's pages that were ever written to: Ray keeps them until it ends.

    Workers write them, so they are not the raylet's own memory; the file is deleted and still open there.
    """
    files = [path for path in Path(f"/proc/{raylet.pid}/fd").glob("*") if _is_shared_memory(path)]
    return sum(path.stat().st_blocks * 512 for path in files)


def _is_shared_memory(descriptor: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(descriptor).startswith("/dev/shm/")
    return False


def _held_bytes(process: psutil.Process) -> int:
    held = process.memory_full_info()
    return int(getattr(held, "pss", held.rss))
