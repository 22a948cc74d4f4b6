"""Where a pack writes: the tars of each split, and the scratch folder from which a killed pack continues.

The tars lie in a folder of the ShardSet that is named after their content (`version_name.py`), beside those
of the published one. The scratch folder lies beside the ShardSets. Its name begins with a dot, so that no
reader takes it for data.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from raysys import artifacts, storage
from raysys.pack.plan import PlannedShard
from raysys.pack.scan import SCAN_SCHEMA
from raysys.storage.lock import locked

_SCRATCH_PREFIX = ".packing-"
_COMPLETE = "complete"


@dataclass(frozen=True)
class PackPaths:
    """URIs of the files that one pack writes."""

    shard_set_uris: Mapping[str, str]  # by split
    version: str  # the folder with the files, in each ShardSet
    scratch: str

    def folder(self, split: str) -> str:
        """The folder with the files of a split."""
        return storage.join(self.shard_set_uris[split], self.version)

    def tar(self, shard: PlannedShard) -> str:
        """The tar of a shard."""
        return storage.join(self.folder(shard.split), shard.name)

    def done(self, shard: PlannedShard) -> str:
        """The file that marks the shard as written."""
        return storage.join(self.scratch, f"done-{shard.split}-{shard.name.removesuffix('.tar')}.parquet")

    @property
    def version_file(self) -> str:
        """The file with the version that is being written."""
        return storage.join(self.scratch, "version")

    @property
    def complete(self) -> str:
        """The file that exists once all files of the version are written."""
        return storage.join(self.scratch, _COMPLETE)

    def delete_marks(self) -> None:
        """Delete the marks of written shards and of a complete version."""
        for name in storage.list_files(self.scratch):
            if name.startswith("done-") or name == _COMPLETE:
                storage.delete(storage.join(self.scratch, name))

    def plan(self, number: int) -> str:
        """The plan of the rows of one read."""
        return storage.join(self.scratch, f"plan-{number:06d}.parquet")


@contextlib.contextmanager
def scratch_folder(home: str, spec_hashes: Sequence[str]) -> Iterator[str]:
    """The scratch folder of these specs and the current scan schema, locked by this process.

    It is deleted if the block succeeds. All other scratch folders below `home` are deleted first: no pack
    will continue them.

    Raises: Busy if another process packs below `home`.
    """
    content = artifacts.canonical_json([*spec_hashes, SCAN_SCHEMA.names])
    name = f"{_SCRATCH_PREFIX}{hashlib.sha256(content.encode()).hexdigest()[:12]}"
    with locked(home, "raysys pack"):
        for other in storage.list_folders(home):
            if other.startswith(_SCRATCH_PREFIX) and other != name:
                storage.delete(storage.join(home, other))
        storage.create_folder(storage.join(home, name))
        yield storage.join(home, name)
        storage.delete(storage.join(home, name))


def is_publishing(home: str) -> bool:
    """Whether a pack below `home` was killed after its last shard: the same command completes it."""
    scratch_folders = (name for name in storage.list_folders(home) if name.startswith(_SCRATCH_PREFIX))
    return any(storage.exists(storage.join(home, name, _COMPLETE)) for name in scratch_folders)


def list_parts(scratch: str) -> list[str]:
    """The names of the scanned parts, in the order of the catalogue."""
    names = (name for name in storage.list_files(scratch) if name.startswith("part-"))
    return [name for name in names if name.endswith(".parquet")]
