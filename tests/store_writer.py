"""Changes for tests of the store; as a program, a writer that prints the sequence of each change it appends.

`python -m tests.store_writer URL NAME COUNT [TIMEOUT_S]` appends COUNT changes of the items `NAME-0`, `NAME-1`, ..
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
from jaxtyping import Float32

from raysys.store.change_log import ChangeLog
from raysys.store.changes import PhotoFile, Upsert

SPACE = "space-a"
DIMENSIONS = 8


def unit_vector(seed: int) -> Float32[np.ndarray, " d"]:
    """A random vector of length 1."""
    vector = np.random.default_rng(seed).normal(size=DIMENSIONS)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def upsert(item_id: str, **fields: Any) -> Upsert:
    """An upsert with a vector of `SPACE`; `fields` replace those of the default."""
    return Upsert(
        **{
            "item_id": item_id,
            "title": "red dress",
            "attributes": {"price": 3000, "category": "dresses", "new": True, "size": None, "weight": 0.5},
            "content_hash": "c0ffee",
            "photo": PhotoFile("/photos/ab/abc", 1234),
            "vectors": {SPACE: unit_vector(1)},
            "group": "g1",
            **fields,
        }
    )


def start_writer(url: str, name: str, count: int, timeout_s: float = 10.0) -> subprocess.Popen[str]:
    """A process that runs this file; its stdout has a sequence a line."""
    command = [sys.executable, "-m", "tests.store_writer", url, name, str(count), str(timeout_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def read_sequences(writer: subprocess.Popen[str], count: int) -> list[int]:
    """The next sequences that a writer prints."""
    assert writer.stdout is not None
    return [int(writer.stdout.readline()) for _ in range(count)]


def remaining_sequences(writer: subprocess.Popen[str]) -> list[int]:
    """What a writer prints until it ends or was killed; the last line may be cut."""
    assert writer.stdout is not None
    lines = writer.stdout.read().split("\n")[:-1]
    writer.stdout.close()
    writer.wait()
    return [int(line) for line in lines]


def append_and_print(url: str, name: str, count: int, timeout_s: float) -> None:
    """Append the changes one by one; print each sequence when its change was acknowledged."""
    log = ChangeLog(url, timeout_s)
    for number in range(count):
        [sequence] = log.append([upsert(f"{name}-{number}")])
        print(sequence, flush=True)
    log.close()


if __name__ == "__main__":
    append_and_print(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
