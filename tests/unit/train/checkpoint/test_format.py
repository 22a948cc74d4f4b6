"""What was saved is what comes back, and half a checkpoint is none."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from raysys.config.schema import TrainConfig
from raysys.errors import DamagedData, StorageError
from raysys.train.checkpoint.format import (
    CheckpointManifest,
    TrainingState,
    checkpoint_name,
    load_weights,
    write_checkpoint,
)
from raysys.train.model import TrainState
from raysys.train.model.optim import learning_rate_factor, make_optimizers


def fresh_state(seed: int, num_steps: int = 8) -> TrainingState:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizers = make_optimizers(model, TrainConfig(learning_rate=0.1))
    factor = learning_rate_factor(num_steps, 0.25)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizers[0], factor)
    return TrainingState(TrainState(Accelerator(cpu=True), model, model, optimizers, [schedule], start=None))


def trained(state: TrainingState, first: int, last: int) -> None:
    """Steps `first` to `last` on inputs that the step decides."""
    for step in range(first, last):
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        state.engine.model(inputs).square().sum().backward()
        for optimizer, schedule in zip(state.engine.optimizers, state.engine.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def weights(state: TrainingState) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in state.engine.model.parameters()]


def write(state: TrainingState, folder: Path, step: int) -> None:
    snapshot = state.snapshot(step)
    assert snapshot is not None
    write_checkpoint(snapshot, str(folder), spec_hash="f" * 64, stream_position=5 * step, world_size=1)


def test_restored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    undisturbed, saved, restored = fresh_state(1), fresh_state(1), fresh_state(2)
    trained(undisturbed, 0, 6)
    trained(saved, 0, 3)
    write(saved, tmp_path, step=3)
    assert restored.load(tmp_path) == 3
    trained(restored, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(weights(undisturbed), weights(restored), strict=True))
    assert restored.engine.schedules[0].get_last_lr() == undisturbed.engine.schedules[0].get_last_lr()


def test_training_does_not_touch_a_snapshot() -> None:
    state = fresh_state(1)
    trained(state, 0, 2)
    before, snapshot = weights(state), state.snapshot(2)
    assert snapshot is not None
    averages = {name: value.clone() for name, value in snapshot["optimizers"][0]["state"][0].items()}
    trained(state, 2, 4)
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(state), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, snapshot["model"].values(), strict=True))
    assert all(
        torch.equal(averages[name], kept) for name, kept in snapshot["optimizers"][0]["state"][0].items()
    )
    assert snapshot["schedules"][0]["last_epoch"] == 2


def test_longer_run_goes_on_along_the_longer_curve(tmp_path: Path) -> None:
    short, longer = fresh_state(1, num_steps=4), fresh_state(2, num_steps=8)
    trained(short, 0, 4)
    assert short.engine.schedules[0].get_last_lr()[0] == 0.0
    write(short, tmp_path, step=4)
    longer.load(tmp_path)
    # 8 steps of which 2 warm up: after 4 a third of the cosine is behind, 0.5 (1 + cos(pi / 3)) = 0.75.
    assert longer.engine.schedules[0].get_last_lr()[0] == pytest.approx(0.1 * 0.75)
    assert longer.engine.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.75)
    trained(longer, 4, 8)
    assert longer.engine.schedules[0].get_last_lr()[0] == pytest.approx(0.0)


def test_weights_alone_can_be_taken_over(tmp_path: Path) -> None:
    saved, other = fresh_state(1), fresh_state(2)
    write(saved, tmp_path, step=0)
    assert load_weights(other.engine.model, tmp_path) == 0
    assert all(torch.equal(a, b) for a, b in zip(weights(saved), weights(other), strict=True))


def test_averaged_weights_are_taken_over_where_there_are_some(tmp_path: Path) -> None:
    saved, averaged, other = fresh_state(1), fresh_state(2), fresh_state(3)
    snapshot = saved.snapshot(0)
    assert snapshot is not None
    snapshot["weights"] = averaged.engine.model.state_dict()
    write_checkpoint(snapshot, str(tmp_path), spec_hash="f" * 64, stream_position=0, world_size=1)
    load_weights(other.engine.model, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(weights(averaged), weights(other), strict=True))


def test_manifest_says_what_the_state_is_of(tmp_path: Path) -> None:
    folder = tmp_path / checkpoint_name(3)
    folder.mkdir()
    (folder / "left.pt").write_bytes(b"by an attempt that was cut off")
    write(fresh_state(1), folder, step=3)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "state.pt"]
    manifest = CheckpointManifest.model_validate_json((folder / "checkpoint.json").read_bytes())
    data = (folder / "state.pt").read_bytes()
    assert (manifest.uri, manifest.spec_hash) == (str(folder), "f" * 64)
    assert (manifest.step, manifest.stream_position, manifest.world_size) == (3, 15, 1)
    assert manifest.files["state.pt"].bytes == len(data)
    assert manifest.files["state.pt"].sha256 == hashlib.sha256(data).hexdigest()


def test_changed_byte_is_found_before_anything_is_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "run" / checkpoint_name(3)
    write(fresh_state(1), folder, step=3)
    data = bytearray((folder / "state.pt").read_bytes())
    written = hashlib.sha256(data).hexdigest()[:12]
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)
    with pytest.raises(DamagedData) as caught:
        fresh_state(2).load(folder)
    assert str(caught.value) == (
        f"{folder}/state.pt: {len(data)} bytes with sha256 {written} were written, found {len(data)} with "
        f"{hashlib.sha256(data).hexdigest()[:12]}; put the file back, "
        f"or remove {tmp_path}/run to train from the start"
    )


def test_lost_file_is_said(tmp_path: Path) -> None:
    write(fresh_state(1), tmp_path, step=3)
    (tmp_path / "state.pt").unlink()
    with pytest.raises(DamagedData, match="state.pt: .* were written, found 0 with none; put the file back"):
        load_weights(fresh_state(2).engine.model, tmp_path)


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_checkpoint_without_a_manifest_is_none(tmp_path: Path, content: str | None) -> None:
    write(fresh_state(1), tmp_path, step=3)
    (tmp_path / "checkpoint.json").unlink()
    if content is not None:
        (tmp_path / "checkpoint.json").write_text(content)
    with pytest.raises(DamagedData) as caught:
        fresh_state(2).load(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/checkpoint.json: not readable (")
    assert str(caught.value).endswith("); remove the run's folder to train from the start")
    assert "\n" not in str(caught.value)


@pytest.fixture
def little_room() -> Iterator[None]:
    """No file may grow beyond 256 bytes: to a writer that is a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (256, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("little_room")
def test_disk_that_fills_leaves_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="could not be written .*; free space there, or use another place"):
        write(fresh_state(1), tmp_path / "checkpoint", step=3)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_names_of_checkpoints_sort_as_their_steps_do() -> None:
    assert checkpoint_name(99) == "checkpoint_00000099"
    assert sorted(checkpoint_name(step) for step in (100, 99, 1000)) == [
        checkpoint_name(step) for step in (99, 100, 1000)
    ]
