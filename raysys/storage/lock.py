"""A lock on a folder: one process at a time writes there.

On a local disk the operating system holds the lock and releases it however the holder ends. Object stores
have no such lock: two commands that write to the same place there are not kept apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import filelock

from raysys.errors import Busy
from raysys.storage.uri import is_local, local_path

LOCK_FILE = ".lock"


@contextmanager
def locked(folder_uri: str, command: str) -> Iterator[None]:
    """Hold the folder while the block runs; it is created if it does not exist.

    Raises: Busy if another process holds it.
    """
    if not is_local(folder_uri):
        yield
        return
    folder = local_path(folder_uri)
    folder.mkdir(parents=True, exist_ok=True)
    lock = filelock.FileLock(folder / LOCK_FILE, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout as error:
        raise Busy(
            f"{folder_uri}: another `{command}` is running here; "
            "wait for it to end, or change `name` or `root`"
        ) from error
    try:
        yield
    finally:
        lock.release()
