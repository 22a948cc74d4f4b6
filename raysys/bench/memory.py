"""Peak memory of a process and all its descendants, sampled from outside."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType

import psutil

# A sample reads all page tables: it takes 10 to 100 ms of one core, and holds up what it measures.
_SAMPLE_EVERY_S, _MAX_SHARE = 0.5, 0.02


class PeakMemory:
    """Samples a process tree from a thread while the block runs, at most for a fiftieth of the time.

    `tree_bytes` counts memory that processes share once (PSS; RSS where the system has no PSS).
    `store_bytes` is Ray's object store: on Linux, the raylet's files under `/dev/shm`.
    """

    def __init__(self, pid: int) -> None:
        self.tree_bytes = 0
        self.store_bytes = 0
        self._root = psutil.Process(pid)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample_until_stopped, daemon=True)

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def _sample_until_stopped(self) -> None:
        took_s = 0.0
        while not self._stop.wait(max(_SAMPLE_EVERY_S, took_s / _MAX_SHARE)):
            started = time.monotonic()
            self._sample()
            took_s = time.monotonic() - started

    def _sample(self) -> None:
        tree = store = 0
        for process in [self._root, *self._root.children(recursive=True)]:
            try:
                tree += _memory_bytes(process)
                store += _store_bytes(process) if process.name() == "raylet" else 0
            except (psutil.Error, FileNotFoundError):
                continue  # the process has ended in the meantime
        self.tree_bytes, self.store_bytes = max(self.tree_bytes, tree), max(self.store_bytes, store)


def _memory_bytes(process: psutil.Process) -> int:
    info = process.memory_full_info()
    return int(getattr(info, "pss", info.rss))


def _store_bytes(raylet: psutil.Process) -> int:
    """The object store's pages that were ever written: Ray keeps them until it ends.

    Workers write them, so they do not count as the raylet's own memory. The file is deleted, but the raylet
    keeps it open.
    """
    files = [path for path in Path(f"/proc/{raylet.pid}/fd").glob("*") if _is_shared_memory(path)]
    return sum(path.stat().st_blocks * 512 for path in files)


def _is_shared_memory(descriptor: Path) -> bool:
    with contextlib.suppress(OSError):
        return os.readlink(descriptor).startswith("/dev/shm/")
    return False
