"""Complete training runs on a drawn catalogue: uninterrupted, with a killed worker, and on one worker."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers

from raysys import artifacts, pipeline, storage
from raysys.artifacts import EncoderBundleManifest, specs
from raysys.cluster import session
from raysys.config import Config
from raysys.encoder.bundle import open_bundle
from raysys.encoder.interpolation import read_interpolation
from raysys.errors import InputError, MissingError
from raysys.shards.reader import item_ids, shards_of
from raysys.tracking.metrics_log import read_metrics, read_steps, read_validations
from raysys.train import trainer
from raysys.train.checkpoint.format import CheckpointManifest, checkpoint_name
from raysys.train.checkpoint.registry import best_step, newest_step
from tests.ray.training_runs import (
    BATCH,
    EVERY,
    NUM_STEPS,
    Run,
    copy_root,
    has_checkpoint,
    run_of,
    small_config,
    training_workers,
    worker_that_is_killed_before_a_save,
)

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    # Ray 2.60 sets its own deprecated settings when it makes a DataContext.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
INCOMPLETE = "checkpoint_00000099"  # left by an interrupted upload


@pytest.fixture(scope="module")
def killed(start: tuple[Path, int], uninterrupted: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, but a worker is killed after the first checkpoint, and one before the next is saved."""
    config = small_config(copy_root(start[0], tmp_path_factory.mktemp("killed")), start[1])
    run = run_of(config)
    killer = threading.Thread(target=kill_a_worker, args=(run.uri,), daemon=True)
    killer.start()
    with patch.object(trainer, "_train_worker", worker_that_is_killed_before_a_save):
        pipeline.run_stage("train", config)
    killer.join(timeout=1)
    assert not killer.is_alive()
    return run


@pytest.fixture(scope="module")
def longer(start: tuple[Path, int], uninterrupted: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The uninterrupted run continues for 8 steps on one worker, with a checkpoint after every step.

    Ray's list of its checkpoints is truncated first.
    """
    root = copy_root(start[0], tmp_path_factory.mktemp("longer"))
    config = small_config(root, start[1], workers=1, num_steps=40, checkpoint_every_minutes=1e-9)
    run = run_of(config)
    shutil.copytree(uninterrupted.uri, run.uri)
    Path(run.uri, INCOMPLETE).mkdir()
    truncate_list(run)
    pipeline.run_stage("train", config)
    return run


def truncate_list(run: Run) -> None:
    """Truncate Ray's list of checkpoints, as a kill does while it is written."""
    path = Path(run.uri, "checkpoint_manager_snapshot.json")
    path.write_bytes(path.read_bytes()[:100])


def kill_a_worker(run_uri: str) -> None:
    """Wait for a checkpoint, then kill the newest training worker with SIGKILL."""
    deadline = time.monotonic() + 120
    while not has_checkpoint(run_uri):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(max(training_workers()), signal.SIGKILL)


def test_every_step_is_recorded_once_and_the_model_learns(uninterrupted: Run) -> None:
    losses = uninterrupted.losses
    assert list(losses) == list(range(1, NUM_STEPS + 1))
    assert sum(losses[step] for step in range(23, 33)) < sum(losses[step] for step in range(1, 11))
    first = read_metrics(uninterrupted.uri)[0]
    step_metrics = {
        "step",
        "loss",
        "grad_norm",
        "scale",
        "bias",
        "learning_rate",
        "samples_seen",
        "samples_skipped",
        "weight_norm",
        "update_ratio",
    }
    throughput = {"pairs_per_s", "model_tflops", "data_wait", "first_batch_s", "memory_mb"}
    assert set(first) == step_metrics | throughput
    assert 0 <= first["data_wait"] < 1
    assert (first["samples_seen"], first["samples_skipped"]) == (BATCH, 0)
    assert first["scale"] == pytest.approx(10.0, rel=1e-2)


def test_every_checkpoint_is_validated(uninterrupted: Run) -> None:
    rows = [row for row in read_metrics(uninterrupted.uri) if "val_r@1" in row]
    assert [row["step"] for row in rows] == [0, 8, 16, 24, 32]  # with the start
    assert all(row["val_r@1"] - rows[0]["val_r@1"] == row["val_r@1_gain"] for row in rows[1:])
    assert all(0.0 <= row["val_r@1"] <= row["val_r@5"] <= row["val_r@10"] <= 1.0 for row in rows)


@pytest.mark.parametrize("name", ["uninterrupted", "killed", "longer"])
def test_best_and_newest_checkpoint_are_kept(name: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(name)
    validations = [row for row in read_metrics(run.uri) if "val_score" in row and row["step"] > 0]
    best = int(max((row["val_score"], row["step"]) for row in validations)[1])
    newest = 40 if name == "longer" else NUM_STEPS
    assert (best_step(run.uri), newest_step(run.uri)) == (best, newest)
    folders = {path.name for path in Path(run.uri).glob("checkpoint_0*")}
    assert folders == {checkpoint_name(best), checkpoint_name(newest)}


def test_fine_tuned_bundle_holds_the_weights_of_the_best_checkpoint(uninterrupted: Run) -> None:
    uri = specs.layout_of(uninterrupted.config).fine_tuned_encoder
    manifest = artifacts.open_artifact(uri, EncoderBundleManifest)
    start_uri = specs.layout_of(uninterrupted.config).start_encoder
    assert manifest.parent_space_id == artifacts.open_artifact(start_uri, EncoderBundleManifest).space_id
    best = best_step(uninterrupted.uri)
    assert manifest.training_run == f"{uninterrupted.uri}/{checkpoint_name(best)}"
    assert (manifest.num_items, manifest.dimensions) == (NUM_STEPS * BATCH, 32)
    assert open_bundle(uri).space_id == manifest.space_id != manifest.parent_space_id
    state = torch.load(f"{manifest.training_run}/state.pt", weights_only=True)
    assert state["step"] == best
    plain = transformers.AutoModel.from_pretrained(uri).state_dict()
    assert all(torch.equal(plain[name], tensor) for name, tensor in state["model"].items())


def test_wise_ft_with_two_points_delivers_start_or_fine_tuned_weights(uninterrupted: Run) -> None:
    layout = specs.layout_of(uninterrupted.config)
    interpolation = read_interpolation(layout.encoder)
    ends = {0.0: layout.start_encoder, 1.0: layout.fine_tuned_encoder}
    assert [point.alpha for point in interpolation.points] == list(ends)
    delivered, chosen = (transformers.AutoModel.from_pretrained(uri).state_dict() for uri in (layout.encoder, ends[interpolation.alpha]))  # fmt: skip
    assert all(torch.equal(weight, chosen[name]) for name, weight in delivered.items())
    validated = {
        row["step"]: row["val_score"] for row in read_metrics(uninterrupted.uri) if "val_score" in row
    }
    scores = [point.metrics["score"] for point in interpolation.points]
    assert scores == pytest.approx([validated[0], validated[best_step(uninterrupted.uri)]])
    fine_tuned, manifest = (artifacts.open_artifact(uri, EncoderBundleManifest) for uri in (layout.fine_tuned_encoder, layout.encoder))  # fmt: skip
    assert (manifest.parent_space_id, manifest.training_run) == (fine_tuned.space_id, fine_tuned.training_run)


def test_checkpoint_manifest_describes_its_state(uninterrupted: Run) -> None:
    folder = Path(uninterrupted.uri, checkpoint_name(NUM_STEPS))
    manifest = CheckpointManifest.model_validate_json((folder / "checkpoint.json").read_bytes())
    assert (manifest.step, manifest.stream_position, manifest.world_size) == (NUM_STEPS, NUM_STEPS * BATCH, 2)
    assert manifest.spec_hash == specs.training_run(uninterrupted.config).spec_hash
    assert manifest.files == artifacts.describe_files(str(folder), ["state.pt"])


def test_finished_run_continues_with_more_steps(uninterrupted: Run, longer: Run) -> None:
    assert longer.losses.keys() == set(range(1, 41))
    assert {step: longer.losses[step] for step in range(1, 33)} == uninterrupted.losses
    assert not Path(longer.uri, INCOMPLETE).exists()
    (rate,) = [
        row["learning_rate"] for row in read_metrics(longer.uri) if row["step"] == 33 and "loss" in row
    ]
    # 40 steps with 2 of warm-up: a cosine over 38 steps, of which 30 are done.
    assert rate == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 30 / 38)))


def test_next_command_measures_what_a_kill_after_the_last_step_left_unmeasured(
    start: tuple[Path, int], uninterrupted: Run, tmp_path: Path
) -> None:
    config = small_config(copy_root(start[0], tmp_path), start[1])
    run = run_of(config)
    shutil.copytree(uninterrupted.uri, run.uri)
    paths = [Path(run.uri, "validated", f"{NUM_STEPS:08d}.json"), Path(run.uri, "sweep.json")]
    expected = [path.read_bytes() for path in paths]
    for path in paths:
        path.unlink()
    truncate_list(run)
    pipeline.run_stage("train", config)
    assert [path.read_bytes() for path in paths] == expected
    assert run.weights == uninterrupted.weights
    assert run.losses == uninterrupted.losses

    # Other settings of the points: the workers measure them and train nothing.
    layout = specs.layout_of(config)
    fine_tuned = Path(layout.fine_tuned_encoder, "manifest.json").read_bytes()
    tree = config.model_dump()
    tree["train"]["robust"]["interpolation_steps"] = 3
    changed = Config.model_validate(tree)
    pipeline.run_stage("train", changed)
    points = read_interpolation(layout.encoder).points
    assert [point.alpha for point in points] == [0.0, 0.5, 1.0]
    assert [points[0], points[2]] == read_interpolation(specs.layout_of(uninterrupted.config).encoder).points
    assert Path(layout.fine_tuned_encoder, "manifest.json").read_bytes() == fine_tuned
    assert run.losses == uninterrupted.losses

    # Without the run's folder they cannot, and the command does not train again.
    shutil.rmtree(run.uri)
    with pytest.raises(InputError, match="has no checkpoint, and train.method=wise_ft measures"):
        pipeline.run_stage("train", config)


def test_name_of_another_run_is_refused_before_ray_starts(
    uninterrupted: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise AssertionError("connected to a cluster")

    monkeypatch.setattr(session, "connect", fail)
    train = uninterrupted.config.train.model_copy(update={"learning_rate": 2e-3})
    with pytest.raises(InputError) as caught:
        pipeline.run_stage("train", uninterrupted.config.model_copy(update={"train": train}))
    assert str(caught.value) == (
        f"{specs.layout_of(uninterrupted.config).runs}: was trained with train.learning_rate=0.001, now 0.002; "
        "change `name`, or set train.on_config_change=restart"
    )


def test_second_command_is_skipped(uninterrupted: Run) -> None:
    assert pipeline.run_stage("train", uninterrupted.config).is_skipped


def test_wandb_gets_config_steps_and_validations(uninterrupted: Run) -> None:
    segments = uninterrupted.wandb_segments
    history = [row for segment in segments for row in segment.history]
    assert {segment.group for segment in segments} == {"small"}
    assert segments[0].config["train"]["learning_rate"] == 1e-3
    assert segments[0].config["encoder"]["scratch"]["hidden_size"] == 32
    steps = [row for row in history if "train/loss" in row]
    assert [row["global_step"] for row in steps] == list(range(1, NUM_STEPS + 1))
    assert {row["global_step"]: row["train/loss"] for row in steps} == pytest.approx(uninterrupted.losses)
    recorded = read_metrics(uninterrupted.uri)[0].keys() - {"step"}
    assert all({f"train/{name}" for name in recorded} <= set(row) for row in steps)
    for name, expected in (("train/val_r@1", [0, 8, 16, 24, 32]), ("train/neighbours.path", [8, 16, 24, 32])):
        assert [row["global_step"] for row in history if name in row] == expected


def test_wandb_gets_the_inputs_of_the_bundle(uninterrupted: Run) -> None:
    layout = specs.layout_of(uninterrupted.config)
    bundle = artifacts.open_artifact(layout.fine_tuned_encoder, EncoderBundleManifest)
    first, last = uninterrupted.wandb_segments[0], uninterrupted.wandb_segments[-1]
    lineage = {name: entry.model_dump() for name, entry in bundle.inputs.items()}
    assert set(lineage) == {"shards", "start"}
    assert first.config["lineage"] == lineage
    assert last.references == {
        "small-shards": (f"file://{layout.shards('train')}/manifest.json", lineage["shards"]["fingerprint"]),
        "small-start": (f"file://{layout.start_encoder}/manifest.json", lineage["start"]["fingerprint"]),
        "small-encoder": (f"file://{layout.fine_tuned_encoder}/manifest.json", bundle.fingerprint),
    }


def test_killed_run_ends_with_the_same_weights_bit_for_bit(uninterrupted: Run, killed: Run) -> None:
    assert killed.uri != uninterrupted.uri
    assert Path(killed.uri, "killed").exists()
    assert Path(killed.uri, "attempts").read_text().count("rank 0") == 3
    assert killed.weights == uninterrupted.weights


def test_killed_run_records_every_step_once(uninterrupted: Run, killed: Run) -> None:
    assert killed.losses == uninterrupted.losses
    validated = [row["step"] for row in read_metrics(killed.uri) if "val_r@1" in row]
    assert validated == [0, 8, 16, 24, 32]


def test_kill_between_validation_and_checkpoint_leaves_every_checkpoint_measured_once(
    uninterrupted: Run, killed: Run
) -> None:
    assert read_validations(killed.uri) == read_validations(uninterrupted.uri)
    assert Path(killed.uri, "sweep.json").read_bytes() == Path(uninterrupted.uri, "sweep.json").read_bytes()


def test_wandb_gets_every_metric_of_a_killed_run_once_in_one_run(killed: Run) -> None:
    assert len({segment.run_id for segment in killed.wandb_segments}) == 1
    history = [row for segment in killed.wandb_segments for row in segment.history]
    assert [row["global_step"] for row in history if "train/loss" in row] == list(range(1, NUM_STEPS + 1))
    assert [row["global_step"] for row in history if "train/val_r@1" in row] == [0, 8, 16, 24, 32]


# One more training run; test_loss_ranks.py covers the same with plain processes in `make test`.
@pytest.mark.slow
def test_first_step_is_the_same_on_one_and_on_two_workers(
    start: tuple[Path, int], uninterrupted: Run, tmp_path: Path
) -> None:
    config = small_config(copy_root(start[0], tmp_path), start[1], workers=1, num_steps=1)
    pipeline.run_stage("train", config)
    one, two = (read_metrics(run.uri)[0] for run in (run_of(config), uninterrupted))
    assert one["loss"] == pytest.approx(two["loss"], abs=1e-6)
    assert one["grad_norm"] == pytest.approx(two["grad_norm"], rel=1e-5)
    assert storage.exists(f"{specs.layout_of(config).fine_tuned_encoder}/manifest.json")


def taught_config(start: tuple[Path, int], embeddings: Path) -> Config:
    """A run beside the others of the same root."""
    teacher = {"embeddings": str(embeddings), "head_learning_rate": 0.05}
    config = small_config(*start, workers=1, num_steps=8, teacher=teacher, method="full", optimizer="adamw")
    return config.model_copy(update={"name": "taught"})


def test_run_with_a_teacher_logs_its_loss_and_records_it(
    start: tuple[Path, int], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ids = pa.concat_arrays([item_ids(shard) for shard in shards_of(f"{start[0]}/shards/train")])
    values = np.random.default_rng(0).normal(size=(len(ids), 40)).astype(np.float16)
    column = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 40)
    pq.write_table(pa.table({"item_id": ids, "embedding": column}), tmp_path / "teacher.parquet")
    config = taught_config(start, tmp_path / "teacher.parquet")
    pipeline.run_stage("train", config)
    losses = [row["teacher_loss"] for row in read_steps(run_of(config).uri)]
    assert len(losses) == 8
    assert all(0.0 < loss < 2.0 for loss in losses)  # vectors of noise: nothing to learn
    manifest = artifacts.open_artifact(specs.layout_of(config).encoder, EncoderBundleManifest)
    assert manifest.inputs["teacher"].uri == f"{tmp_path}/teacher.parquet"
    assert "not in W&B" not in caplog.text


def test_absent_teacher_is_refused_before_ray_starts(
    start: tuple[Path, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise AssertionError("connected to a cluster")

    monkeypatch.setattr(session, "connect", fail)
    with pytest.raises(
        MissingError, match="absent: no such vectors; an EmbeddingSet, or a Parquet file or folder"
    ):
        pipeline.run_stage("train", taught_config(start, tmp_path / "absent"))


def test_run_stops_early_at_the_checkpoint_that_exhausts_the_patience(
    start: tuple[Path, int], tmp_path: Path
) -> None:
    frozen: dict[str, Any] = {"optimizer": "adamw", "learning_rate": 1e-12, "validation": {"patience": 1}}
    config = small_config(copy_root(start[0], tmp_path), start[1], **frozen)
    pipeline.run_stage("train", config)
    run = run_of(config)
    assert [row["step"] for row in read_metrics(run.uri) if "val_score" in row] == [0, EVERY, 2 * EVERY]
    assert list(run.losses) == list(range(1, 2 * EVERY + 1))
    assert newest_step(run.uri) == 2 * EVERY
    bundle = artifacts.open_artifact(specs.layout_of(config).fine_tuned_encoder, EncoderBundleManifest)
    assert bundle.training_run == f"{run.uri}/{checkpoint_name(best_step(run.uri))}"
    assert pipeline.run_stage("train", config).is_skipped
