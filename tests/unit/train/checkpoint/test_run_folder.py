"""Which run may begin or continue, and why others are refused."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

from raysys.artifacts import InputEntry
from raysys.artifacts.specs import TrainingRun
from raysys.config.schema import LoraConfig, TrainConfig
from raysys.errors import InputError
from raysys.train.checkpoint import run_folder
from raysys.train.checkpoint.format import checkpoint_name

USAGE = namedtuple("USAGE", "total used free")


def make_run(
    tmp_path: Path, *, shards: str = "a", start: str = "b", encoder: Any = None, **train: Any
) -> TrainingRun:
    fingerprints = {"shards": shards, "start": start}
    inputs = {name: InputEntry(uri=name, fingerprint=value) for name, value in fingerprints.items()}
    settings = {
        "train": {"learning_rate": 1e-5, "batch_size": 32, "lora": None, **train},
        "encoder": {"seed": 0},
    }
    return TrainingRun(str(tmp_path / "runs/shop"), settings | (encoder or {}), inputs)


def prepare(run: TrainingRun, num_steps: int = 100, start_uri: str = "nowhere", **train: Any) -> None:
    run_folder.prepare_run_folder(run, TrainConfig(**train), num_steps=num_steps, start_uri=start_uri)


def register_checkpoint(run: TrainingRun, step: int, **train: Any) -> None:
    """Begin the run and register a checkpoint."""
    prepare(run, **train)
    folder = Path(run.uri) / checkpoint_name(step)
    folder.mkdir()
    (folder / "checkpoint.json").write_text("{}")
    results = [{"checkpoint_dir_name": checkpoint_name(step), "metrics": {}}]
    text = json.dumps({"ray_version": importlib.metadata.version("ray"), "checkpoint_results": results})
    (Path(run.uri) / "checkpoint_manager_snapshot.json").write_text(text)


def refusal(run: TrainingRun, **train: Any) -> str:
    with pytest.raises(InputError) as caught:
        prepare(run, **train)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_run_json_holds_settings_spec_hash_and_inputs(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    prepare(run)
    content = json.loads((Path(run.uri) / "run.json").read_text())
    assert content["settings"] == run.settings
    assert content["spec_hash"] == run.spec_hash
    assert content["inputs"]["shards"] == {"uri": "shards", "fingerprint": "a"}


def test_same_run_continues_without_its_incomplete_checkpoints(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    register_checkpoint(run, 40)
    (Path(run.uri) / checkpoint_name(60)).mkdir()
    prepare(run)
    assert [path.name for path in Path(run.uri).glob("checkpoint_0*")] == [checkpoint_name(40)]


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        ({"learning_rate": 3e-5}, "train.learning_rate=1e-05, now 3e-05"),
        ({"shards": "c"}, "other shards"),
        ({"start": "c"}, "another start"),
        ({"lora": {"rank": 8}}, 'train.lora=null, now {"rank": 8}'),
        (
            {"learning_rate": 3e-5, "encoder": {"encoder": {"seed": 1}}, "shards": "c"},
            "encoder.seed=0, now 1, and train.learning_rate=1e-05, now 3e-05, and other shards",
        ),
        (
            {"learning_rate": 3e-5, "batch_size": 64, "ema_decay": 0.9, "shards": "c", "start": "d"},
            "train.batch_size=32, now 64, and train.ema_decay=unset, now 0.9, "
            "and train.learning_rate=1e-05, now 3e-05, and 2 more",
        ),
    ],
)
def test_another_run_of_the_same_name_is_refused(
    tmp_path: Path, changes: dict[str, Any], listed: str
) -> None:
    register_checkpoint(make_run(tmp_path), 40)
    assert refusal(make_run(tmp_path, **changes)) == (
        f"{tmp_path}/runs/shop: was trained with {listed}; change `name`, or set train.on_config_change=restart"
    )


def test_refused_run_leaves_no_folder(tmp_path: Path) -> None:
    register_checkpoint(make_run(tmp_path), 40)
    changed = make_run(tmp_path, learning_rate=3e-5)
    refusal(changed)
    assert not Path(changed.uri).exists()


def test_run_without_a_checkpoint_does_not_block_another(tmp_path: Path) -> None:
    prepare(make_run(tmp_path))
    prepare(make_run(tmp_path, learning_rate=3e-5))


def test_restarted_run_and_the_old_one_can_both_continue(tmp_path: Path) -> None:
    old, new = make_run(tmp_path), make_run(tmp_path, learning_rate=3e-5)
    register_checkpoint(old, 40)
    register_checkpoint(new, 10, on_config_change="restart")
    for run in (old, new):
        prepare(run)
        assert Path(run.uri, "run.json").exists()


def test_run_with_more_steps_than_configured_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    register_checkpoint(run, 40)
    prepare(run, num_steps=40)
    assert refusal(run, num_steps=39, epochs=2) == (
        f"{run.uri}: was already trained for 40 steps, but train.epochs=2 gives 39; "
        "raise train.epochs, or change `name`"
    )


@pytest.mark.parametrize(
    ("section", "needed"),
    [
        ({}, 9_000),  # 3 checkpoints of the weights and AdamW's two averages
        ({"ema_decay": 0.9}, 12_000),
        ({"lora": LoraConfig()}, 3_000),
    ],
)
def test_disk_without_space_for_three_checkpoints_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, section: dict[str, Any], needed: int
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    with (start / "model.safetensors").open("wb") as stream:
        stream.truncate(1_000_000_000)  # a sparse file
    free = needed * 10**6
    monkeypatch.setattr(shutil, "disk_usage", lambda _: USAGE(0, 0, free))
    run = make_run(tmp_path)
    prepare(run, start_uri=str(start), **section)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: USAGE(0, 0, free - 10**9))
    assert refusal(run, start_uri=str(start), **section) == (
        f"{run.uri}: 3 checkpoints need {needed / 1000:.1f} GB, {needed / 1000 - 1:.1f} GB are free; "
        "free space there, or set root to another disk"
    )
    with (Path(run.uri) / "checkpoint_00000040").open("wb") as stream:
        stream.truncate(10**9)  # the space of its own checkpoints counts as free
    prepare(run, start_uri=str(start), **section)


@pytest.mark.parametrize(
    ("num_bytes", "free", "needed"),
    [(100, "299 bytes", "300 bytes"), (400_000, "1.2 MB", "1.2 MB"), (2_000, "6.0 kB", "6.0 kB")],
)
def test_small_sizes_are_not_shown_as_zero(
    num_bytes: int, free: str, needed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "start"
    start.mkdir()
    (start / "model.safetensors").write_bytes(bytes(num_bytes))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: USAGE(0, 0, 3 * num_bytes - 1))
    run = make_run(tmp_path)
    message = refusal(run, start_uri=str(start), lora=LoraConfig())
    assert f"3 checkpoints need {needed}, {free} are free; free space there" in message
