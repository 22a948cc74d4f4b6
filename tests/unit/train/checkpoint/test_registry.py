"""Of a run's checkpoints those count that Ray Train has listed; a list that it cannot read is made again."""

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
    mend_list,
    newest_step,
    remove_unregistered,
    whole_steps,
)

LIST = "checkpoint_manager_snapshot.json"


def register(run: Path, *steps: int, **more: Any) -> None:
    """Write the list that Ray Train keeps."""
    results = [{"checkpoint_dir_name": checkpoint_name(step), "metrics": {}} for step in steps]
    said = {"ray_version": importlib.metadata.version("ray"), "checkpoint_results": results, **more}
    (run / LIST).write_text(json.dumps(said))


def make_whole(run: Path, *steps: int) -> None:
    for step in steps:
        folder = run / checkpoint_name(step)
        folder.mkdir()
        (folder / "checkpoint.json").write_text("{}")


def score(run: Path, **scores: float) -> None:
    for step, value in scores.items():
        record_validation(str(run), int(step.removeprefix("step")), {"val_score": value})


def names(run: Path) -> list[str]:
    return [one["checkpoint_dir_name"] for one in json.loads((run / LIST).read_text())["checkpoint_results"]]


def test_newest_step_counts_registered_checkpoints_alone(tmp_path: Path) -> None:
    register(tmp_path, 20, 100)
    make_whole(tmp_path, 120)  # Ray was killed before it listed it
    assert newest_step(str(tmp_path)) == 100


def test_best_step_is_that_of_the_highest_score_among_those_kept(tmp_path: Path) -> None:
    register(tmp_path, 10, 20, 30, 40)
    score(tmp_path, step0=0.9, step5=0.8, step10=0.5, step20=0.7, step40=0.6)
    assert best_step(str(tmp_path)) == 20
    register(tmp_path, 30)  # it was not measured
    assert best_step(str(tmp_path)) == 30


def test_checkpoints_without_a_place_in_the_list_are_removed(tmp_path: Path) -> None:
    register(tmp_path, 20, 100)
    make_whole(tmp_path, 20, 100, 120)
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


@pytest.mark.parametrize("torn", ["", '{"ray_version": "2.60.0", "checkpoint_res', "[]"])
def test_torn_list_is_told_and_made_again_from_whole_checkpoints(tmp_path: Path, torn: str) -> None:
    make_whole(tmp_path, 20, 30, 40)
    (tmp_path / checkpoint_name(50)).mkdir()  # cut off while it was written
    score(tmp_path, step20=0.7, step30=0.5)
    (tmp_path / LIST).write_text(torn)
    with pytest.raises(DamagedData, match="not readable .*; the command that trains the run mends it"):
        newest_step(str(tmp_path))
    mend_list(str(tmp_path))
    assert names(tmp_path) == [checkpoint_name(step) for step in (40, 30, 20)]  # by rising score
    assert (best_step(str(tmp_path)), newest_step(str(tmp_path))) == (20, 40)


def test_list_of_another_ray_is_made_again(tmp_path: Path) -> None:
    make_whole(tmp_path, 20)
    register(tmp_path, 20, ray_version="2.59.0", unknown=1)
    mend_list(str(tmp_path))
    assert json.loads((tmp_path / LIST).read_text())["ray_version"] == importlib.metadata.version("ray")
    assert names(tmp_path) == [checkpoint_name(20)]


def test_good_list_and_no_list_stay_as_they_are(tmp_path: Path) -> None:
    mend_list(str(tmp_path))
    assert not (tmp_path / LIST).exists()
    register(tmp_path, 20)
    before = (tmp_path / LIST).read_bytes()
    mend_list(str(tmp_path))
    assert (tmp_path / LIST).read_bytes() == before


def test_whole_steps_are_those_that_were_written_to_their_end(tmp_path: Path) -> None:
    make_whole(tmp_path, 9, 100)
    (tmp_path / checkpoint_name(120)).mkdir()
    (tmp_path / "checkpoint_of_somebody").mkdir()
    assert whole_steps(str(tmp_path)) == [9, 100]
