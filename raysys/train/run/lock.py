"""One command at a time trains what has a name: two would write over each other's checkpoints.

On a disk the kernel holds the lock, and lets go of it however the holder ends. In a store a run is guarded by
the name of its `Watch`, which a cluster gives but once; two clusters that share a store are not guarded.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import filelock

from raysys import storage
from raysys.errors import InputError

_LOCK = "lock"


@contextmanager
def locked(home_uri: str) -> Iterator[None]:
    """Hold all runs of a name, which lie in `home_uri`, while the block runs.

    Raises: InputError if another process holds them.
    """
    if not storage.is_local(home_uri):
        yield
        return
    folder = storage.local_path(home_uri)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / _LOCK, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise in_use(home_uri) from error
    try:
        yield
    finally:
        lock.release()


def in_use(uri: str) -> InputError:
    """What the second command is told."""
    return InputError(f"{uri}: another command trains it; wait for its end, or give this one another name")
