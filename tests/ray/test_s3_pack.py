"""A repack on an object store, killed with SIGKILL: readers see the old or the new ShardSet as a whole."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from raysys import storage
from raysys.config.schema import SPLITS, PackConfig
from tests.s3 import make_bucket
from tests.unit.pack.killed_pack import STEPS, titles
from tests.unit.pack.small_catalogue import BY_COLUMN, run, write_catalogue

KILL_TIMEOUT_S = 120.0
# tests/unit/pack/test_interrupted.py stops at every step on a local disk. Here: while tars are written,
# between the manifests of two splits, and before the old files are deleted.
KILLED = [step for step in STEPS if "tar" in step or "val/manifest" in step or "delete .*/test" in step]


def bytes_below(uri: str) -> dict[str, bytes]:
    """Every file below a URI except those that hold times."""
    names = (name for name in storage.list_files(uri, hidden=True) if not name.endswith("manifest.json"))
    return {name: storage.read_bytes(storage.join(uri, name)) for name in names}


def test_killed_repack_leaves_the_old_or_the_new_set_and_ends_with_the_same_bytes(
    s3_server: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{s3_server}")
    make_bucket(s3_server, "repack")
    old = [{"item_id": split, "title": "old", "part": split} for split in SPLITS]
    new = [{**row, "title": "new"} for row in old]
    section = PackConfig(split=BY_COLUMN)
    config = write_catalogue(tmp_path, old, section).model_copy(update={"root": "s3://repack/config"})
    run(config)
    write_catalogue(tmp_path, new, section)
    run(config.model_copy(update={"root": "s3://repack/reference"}))
    (tmp_path / "config.json").write_text(config.model_dump_json())
    assert len(KILLED) == 3
    for step in KILLED:
        command = [sys.executable, "-m", "tests.unit.pack.killed_pack", str(tmp_path / "config.json"), step]
        finished = subprocess.run(command, timeout=KILL_TIMEOUT_S, check=False)
        assert finished.returncode == -signal.SIGKILL
        expected = {split: ["new"] if split in STEPS[step] else ["old"] for split in SPLITS}
        assert {split: titles(config, split) for split in SPLITS} == expected, step
    assert not run(config).is_skipped
    assert run(config).is_skipped
    assert {split: titles(config, split) for split in SPLITS} == {split: ["new"] for split in SPLITS}
    assert bytes_below("s3://repack/config") == bytes_below("s3://repack/reference")
