"""The pretrained checkpoint that is part of the package: `encoder.start: tiny`."""

from __future__ import annotations

import json
from pathlib import Path

from raysys import storage
from raysys.artifacts.manifest import InputEntry
from raysys.errors import DamagedData

TINY_FOLDER = Path(__file__).parents[1] / "encoder" / "tiny"
CHECKSUMS = "checksums.json"


def tiny_checkpoint(folder: Path = TINY_FOLDER) -> InputEntry:
    """The folder of the checkpoint, as an input of what is trained from it; its files are hashed.

    Raises: DamagedData if a file is missing or has changed.
    """
    try:
        expected = json.loads((folder / CHECKSUMS).read_bytes())
    except (OSError, ValueError) as error:
        raise _damaged(folder / CHECKSUMS, "is not readable") from error
    if checksums(folder) != expected:
        changed = sorted(dict(checksums(folder).items() ^ expected.items()))
        raise _damaged(folder / changed[0], "is not the file of this version")
    return InputEntry(uri="tiny", fingerprint=storage.sha256_of_bytes(json.dumps(expected).encode()))


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 by file name, of every file but the checksums."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != CHECKSUMS)
    return {path.name: storage.sha256_of_bytes(path.read_bytes()) for path in files}


def _damaged(path: Path, what: str) -> DamagedData:
    return DamagedData(f"encoder.start: tiny: {path} {what}; install raysys again")
