"""The scratch folder of a pack.

It lies beside the ShardSets and its name begins with a dot, so that no reader takes it for data.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

from raysys import storage
from raysys.storage.lock import locked

_PREFIX = ".packing-"


@contextlib.contextmanager
def scratch_folder(home: str, spec_hash: str) -> Iterator[str]:
    """The scratch folder of this spec hash, held by one process; removed after a block without an error.

    The folders of other spec hashes are removed first: no pack will continue them.

    Raises: Busy if another process packs below `home`.
    """
    name = f"{_PREFIX}{hashlib.sha256(spec_hash.encode()).hexdigest()[:12]}"
    with locked(home, "raysys pack"):
        for other in storage.list_folders(home):
            if other.startswith(_PREFIX) and other != name:
                storage.delete(storage.join(home, other))
        storage.create_folder(storage.join(home, name))
        yield storage.join(home, name)
        storage.delete(storage.join(home, name))
