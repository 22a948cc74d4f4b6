"""A pack that is killed before one of its steps, and what the ShardSets then hold.

As a program it packs with the configuration in the file of its first argument, and kills its own process
before the step of the second.
"""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from raysys import storage
from raysys.config import Config
from raysys.config.schema import SPLITS
from raysys.shards.reader import read_shard, shards_of
from tests.unit.pack.small_catalogue import run

# Patterns of a step, in order, and the splits whose new ShardSet is published before it.
STEPS = {
    r"writable_file .*/test/version-\w+/\w+\.tar$": (),
    r"write_bytes .*/val/version-\w+/manifest\.json$": (),
    r"write_bytes .*/complete$": (),
    r"write_bytes .*/train/manifest\.json$": (),
    r"write_bytes .*/val/manifest\.json$": ("train",),
    r"write_bytes .*/test/manifest\.json$": ("train", "val"),
    r"delete .*/test/version-\w+$": SPLITS,
    r"delete .*/\.packing-\w+$": SPLITS,
}


def kill_before(step: str, kill: Callable[[], NoReturn], patch: pytest.MonkeyPatch) -> None:
    """Call `kill` instead of the first change of a file that the pattern `step` describes."""

    def checked(name: str, change: Callable[..., Any]) -> Callable[..., Any]:
        def call(uri: str, *arguments: Any, **options: Any) -> Any:
            if re.match(step, f"{name} {uri}"):
                kill()
            return change(uri, *arguments, **options)

        return call

    for name in ("write_bytes", "writable_file", "delete"):
        patch.setattr(storage, name, checked(name, getattr(storage, name)))


def titles(config: Config, split: str) -> list[str]:
    """The titles of a published ShardSet, of which every tar is checked."""
    shards = shards_of(f"{config.root}/shards/{split}")
    return sorted(item.title for shard in shards for item in read_shard(shard))


def kill_this_process() -> NoReturn:
    """End the process as `kill -9` does."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as context:
        kill_before(sys.argv[2], kill_this_process, context)
        run(Config.model_validate_json(Path(sys.argv[1]).read_text()))
