"""The scratch folder of a pack, held by one process at a time.

It stands beside the ShardSets and begins with a dot, so that nobody takes it for data. On local disks a lock
that ends with its process keeps a second pack out. Object stores have no such lock: there, two packs of one
configuration write the same bytes, and two of different ones are the user's to avoid.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
from collections.abc import Iterator

from raysys import storage
from raysys.errors import Busy

_PREFIX = ".packing-"
_LOCK = ".packing.lock"


@contextlib.contextmanager
def packing_alone(home: str, recipe: str) -> Iterator[str]:
    """The scratch folder for this recipe, which goes when the block ends without an error.

    What packs of other recipes left is removed: nobody will continue them.

    Raises: Busy if another process packs below `home`.
    """
    name = f"{_PREFIX}{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with _held(home):
        for other in storage.list_folders(home):
            if other.startswith(_PREFIX) and other != name:
                storage.delete(storage.join(home, other))
        storage.create_folder(storage.join(home, name))
        yield storage.join(home, name)
        storage.delete(storage.join(home, name))


@contextlib.contextmanager
def _held(home: str) -> Iterator[None]:
    if not storage.is_local(home):
        yield
        return
    folder = storage.local_path(home)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise Busy(
                f"{home}: another `raysys pack` is at work here (process {lock.read() or 'unknown'}); "
                "wait for it, or end it"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield
