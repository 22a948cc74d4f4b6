"""A lock on a folder, so that only one process at a time writes to it.

On a local disk the operating system holds the lock, and releases it even if the process is killed. Object
stores have no such lock: nothing prevents two commands from writing to the same URI there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import filelock

from raysys.errors import Busy
from raysys.storage.retry import as_storage_error
from raysys.storage.uri import is_local, local_path

LOCK_FILE = ".lock"


@contextmanager
def locked(folder_uri: str, command: str) -> Iterator[None]:
    """Lock the folder for the duration of the block, and create it if it does not exist.

    Raises: Busy if another process has locked it; the errors of a folder that cannot be written.
    """
    if not is_local(folder_uri):
        yield
        return
    lock = filelock.FileLock(local_path(folder_uri) / LOCK_FILE, timeout=0)
    try:
        local_path(folder_uri).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except filelock.Timeout as error:
        raise Busy(
            f"{folder_uri}: another `{command}` is running here; "
            "wait for it to end, or change `name` or `root`"
        ) from error
    except OSError as error:
        raise as_storage_error(error, folder_uri, "written") from error
    try:
        yield
    finally:
        lock.release()
