"""Only checkpoints in Ray Train's list count; a list that cannot be read is rebuilt."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path
from typing import Any

import pytest

from raysys.errors import DamagedData
from raysys.tracking.metrics_log import record_validation
from raysys.train.checkpoint.format import checkpoint_name
from raysys.train.checkpoint.registry import (
    best_step,
    complete_steps,
    newest_step,
    remove_unregistered,
    repair_list,
)

LIST = "checkpoint_manager_snapshot.json"


def register(run: Path, *steps: int, **fields: Any) -> None:
    """Write Ray Train's list."""
    results = [{"checkpoint_dir_name": checkpoint_name(step), "metrics": {}} for step in steps]
    content = {"ray_version": importlib.metadata.version("ray"), "checkpoint_results": results, **fields}
    (run / LIST).write_text(json.dumps(content))


def write_complete(run: Path, *steps: int) -> None:
    for step in steps:
        folder = run / checkpoint_name(step)
        folder.mkdir()
        (folder / "checkpoint.json").write_text("{}")


def record_scores(run: Path, **scores: float) -> None:
    for step, value in scores.items():
        record_validation(str(run), int(step.removeprefix("step")), {"val_score": value})


def listed_names(run: Path) -> list[str]:
    return [one["checkpoint_dir_name"] for one in json.loads((run / LIST).read_text())["checkpoint_results"]]


def test_newest_step_ignores_unregistered_checkpoints(tmp_path: Path) -> None:
    register(tmp_path, 20, 100)
    write_complete(tmp_path, 120)  # Ray was killed before it registered this one
    assert newest_step(str(tmp_path)) == 100


def test_best_step_has_the_highest_score_of_the_complete_ones(tmp_path: Path) -> None:
    assert best_step(str(tmp_path)) == 0
    write_complete(tmp_path, 10, 30)
    assert best_step(str(tmp_path)) == 30  # none has a score
    write_complete(tmp_path, 20, 40)
    record_scores(tmp_path, step0=0.9, step5=0.8, step10=0.5, step20=0.7, step40=0.6)
    assert best_step(str(tmp_path)) == 20


def test_unregistered_checkpoints_are_removed(tmp_path: Path) -> None:
    register(tmp_path, 20, 100)
    write_complete(tmp_path, 20, 100, 120)
    (tmp_path / "validated").mkdir()
    remove_unregistered(str(tmp_path))
    left = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert left == [checkpoint_name(20), checkpoint_name(100), "validated"]


def test_run_without_a_checkpoint_starts_at_0(tmp_path: Path) -> None:
    assert newest_step(str(tmp_path / "nothing")) == 0
    (tmp_path / checkpoint_name(5)).mkdir()
    assert newest_step(str(tmp_path)) == 0
    register(tmp_path)
    assert newest_step(str(tmp_path)) == 0


@pytest.mark.parametrize("content", ["", '{"ray_version": "2.60.0", "checkpoint_res', "[]"])
def test_truncated_list_is_refused_and_rebuilt_from_complete_checkpoints(
    tmp_path: Path, content: str
) -> None:
    write_complete(tmp_path, 20, 30, 40)
    (tmp_path / checkpoint_name(50)).mkdir()  # incomplete
    record_scores(tmp_path, step20=0.7, step30=0.5)
    (tmp_path / LIST).write_text(content)
    with pytest.raises(DamagedData, match="not readable .*; `raysys train` .* repairs it"):
        newest_step(str(tmp_path))
    repair_list(str(tmp_path))
    assert listed_names(tmp_path) == [checkpoint_name(step) for step in (40, 30, 20)]  # by ascending score
    assert (best_step(str(tmp_path)), newest_step(str(tmp_path))) == (20, 40)


def test_list_of_another_ray_version_is_rebuilt(tmp_path: Path) -> None:
    write_complete(tmp_path, 20)
    register(tmp_path, 20, ray_version="2.59.0", unknown=1)
    repair_list(str(tmp_path))
    assert json.loads((tmp_path / LIST).read_text())["ray_version"] == importlib.metadata.version("ray")
    assert listed_names(tmp_path) == [checkpoint_name(20)]


def test_readable_or_missing_list_is_left_unchanged(tmp_path: Path) -> None:
    repair_list(str(tmp_path))
    assert not (tmp_path / LIST).exists()
    register(tmp_path, 20)
    before = (tmp_path / LIST).read_bytes()
    repair_list(str(tmp_path))
    assert (tmp_path / LIST).read_bytes() == before


def test_complete_steps_ignore_incomplete_checkpoints_and_other_folders(tmp_path: Path) -> None:
    write_complete(tmp_path, 9, 100)
    (tmp_path / checkpoint_name(120)).mkdir()
    (tmp_path / "checkpoint_other").mkdir()
    assert complete_steps(str(tmp_path)) == [9, 100]
