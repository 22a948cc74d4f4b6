"""Small disks that a test may fill up."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, size_bytes: int, *, owner: str | None = None) -> Iterator[Path]:
    """Mount a disk of this size in an empty folder, which root gives to `owner`.

    Skips where mounting is not permitted.
    """
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(f"a disk cannot be mounted here: {mounted.stderr.strip()}")
    if owner is not None:
        shutil.chown(folder, owner, owner)
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill_disk(folder: Path, left_bytes: int) -> Path:
    """Fill the disk of a folder up to `left_bytes`; the file that does is returned."""
    usage = os.statvfs(folder)
    filler = folder / "filler"
    filler.write_bytes(bytes(usage.f_bavail * usage.f_frsize - left_bytes))
    return filler
