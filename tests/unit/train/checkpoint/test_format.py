"""A checkpoint restores exactly what was saved; a damaged or incomplete one is refused."""

from __future__ import annotations

import hashlib
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from raysys.config.schema import TrainConfig
from raysys.errors import DamagedData, StorageError
from raysys.train.checkpoint.format import (
    CheckpointManifest,
    checkpoint_name,
    exported_weights,
    load_checkpoint,
    write_checkpoint,
)
from raysys.train.model import TrainState
from raysys.train.model.optim import learning_rate_factor, make_optimizers


def new_state(seed: int, num_steps: int = 8, width: int = 4) -> TrainState:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, width), torch.nn.Linear(width, 2))
    optimizers = make_optimizers(model, TrainConfig(learning_rate=0.1))
    factor = learning_rate_factor(num_steps, 0.25)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizers[0], factor)
    return TrainState(Accelerator(cpu=True), model, model, optimizers, [schedule], start=None)


def train(state: TrainState, first: int, last: int) -> None:
    """Take steps `first` to `last` on inputs that depend on the step alone."""
    for step in range(first, last):
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(step))
        state.model(inputs).square().sum().backward()
        for optimizer, schedule in zip(state.optimizers, state.schedules, strict=True):
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()


def weights(state: TrainState) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in state.model.parameters()]


def write(state: TrainState, folder: Path, step: int) -> None:
    write_checkpoint(
        state.state_dict(), str(folder), step=step, spec_hash="f" * 64, stream_position=5 * step, world_size=1
    )


def test_restored_run_continues_bit_for_bit(tmp_path: Path) -> None:
    uninterrupted, saved, restored = new_state(1), new_state(1), new_state(2)
    train(uninterrupted, 0, 6)
    train(saved, 0, 3)
    write(saved, tmp_path, step=3)
    assert load_checkpoint(restored, tmp_path) == 3
    train(restored, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(weights(uninterrupted), weights(restored), strict=True))
    assert restored.schedules[0].get_last_lr() == uninterrupted.schedules[0].get_last_lr()


def test_training_does_not_change_a_state_dict() -> None:
    state = new_state(1)
    train(state, 0, 2)
    before, saved = weights(state), state.state_dict()
    averages = {name: value.clone() for name, value in saved["optimizers"][0]["state"][0].items()}
    train(state, 2, 4)
    assert not any(torch.equal(a, b) for a, b in zip(before, weights(state), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, saved["model"].values(), strict=True))
    saved_averages = saved["optimizers"][0]["state"][0]
    assert all(torch.equal(averages[name], value) for name, value in saved_averages.items())
    assert saved["schedules"][0]["last_epoch"] == 2


def test_longer_run_continues_on_the_longer_schedule(tmp_path: Path) -> None:
    short, longer = new_state(1, num_steps=4), new_state(2, num_steps=8)
    train(short, 0, 4)
    assert short.schedules[0].get_last_lr()[0] == 0.0
    write(short, tmp_path, step=4)
    load_checkpoint(longer, tmp_path)
    # 8 steps with 2 of warm-up: after 4 a third of the cosine is done, 0.5 (1 + cos(pi / 3)) = 0.75.
    assert longer.schedules[0].get_last_lr()[0] == pytest.approx(0.1 * 0.75)
    assert longer.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.1 * 0.75)
    train(longer, 4, 8)
    assert longer.schedules[0].get_last_lr()[0] == pytest.approx(0.0)


def test_weights_can_be_loaded_without_the_rest(tmp_path: Path) -> None:
    saved, other = new_state(1), new_state(2)
    write(saved, tmp_path, step=0)
    other.model.load_state_dict(exported_weights(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(weights(saved), weights(other), strict=True))


def test_averaged_weights_take_precedence(tmp_path: Path) -> None:
    state, averaged, other = new_state(1), new_state(2), new_state(3)
    saved = {**state.state_dict(), "weights": averaged.model.state_dict()}
    write_checkpoint(saved, str(tmp_path), step=0, spec_hash="f" * 64, stream_position=0, world_size=1)
    other.model.load_state_dict(exported_weights(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(weights(averaged), weights(other), strict=True))


def test_manifest_describes_the_state(tmp_path: Path) -> None:
    folder = tmp_path / checkpoint_name(3)
    folder.mkdir()
    (folder / "left.pt").write_bytes(b"left by an interrupted attempt")
    write(new_state(1), folder, step=3)
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.json", "state.pt"]
    manifest = CheckpointManifest.model_validate_json((folder / "checkpoint.json").read_bytes())
    data = (folder / "state.pt").read_bytes()
    assert (manifest.uri, manifest.spec_hash) == (str(folder), "f" * 64)
    assert (manifest.step, manifest.stream_position, manifest.world_size) == (3, 15, 1)
    assert manifest.files["state.pt"].bytes == len(data)
    assert manifest.files["state.pt"].sha256 == hashlib.sha256(data).hexdigest()


def test_changed_byte_is_detected_before_loading(tmp_path: Path) -> None:
    folder = tmp_path / "run" / checkpoint_name(3)
    write(new_state(1), folder, step=3)
    data = bytearray((folder / "state.pt").read_bytes())
    written = hashlib.sha256(data).hexdigest()[:12]
    data[len(data) // 2] ^= 1
    (folder / "state.pt").write_bytes(data)
    with pytest.raises(DamagedData) as caught:
        load_checkpoint(new_state(2), folder)
    assert str(caught.value) == (
        f"{folder}/state.pt: {len(data)} bytes with sha256 {hashlib.sha256(data).hexdigest()[:12]}, but "
        f"{len(data)} bytes with {written} were written; restore the file, "
        f"or remove {tmp_path}/run to train from the start"
    )


def test_missing_file_is_detected(tmp_path: Path) -> None:
    write(new_state(1), tmp_path, step=3)
    (tmp_path / "state.pt").unlink()
    with pytest.raises(
        DamagedData, match="state.pt: 0 bytes with sha256 none, but .* were written; restore the file"
    ):
        exported_weights(tmp_path)


@pytest.mark.parametrize("content", [None, "", "{}"])
def test_checkpoint_without_a_valid_manifest_is_refused(tmp_path: Path, content: str | None) -> None:
    write(new_state(1), tmp_path, step=3)
    (tmp_path / "checkpoint.json").unlink()
    if content is not None:
        (tmp_path / "checkpoint.json").write_text(content)
    with pytest.raises(DamagedData) as caught:
        load_checkpoint(new_state(2), tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}/checkpoint.json: not readable (")
    assert str(caught.value).endswith("); remove the run's folder to train from the start")
    assert "\n" not in str(caught.value)


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """No file may grow beyond this size, which a writer sees as a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:  # before pytest writes its report to a file
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# At the end of the archive; in a tensor, which torch's writer reports as an error of its own.
@pytest.mark.parametrize(("num_bytes", "width"), [(256, 4), (300_000, 30_000)])
def test_full_disk_leaves_no_checkpoint(tmp_path: Path, num_bytes: int, width: int) -> None:
    state = new_state(1, width=width)
    with (
        pytest.raises(StorageError, match="could not be written .*; free space there"),
        full_disk(num_bytes),
    ):
        write(state, tmp_path / "checkpoint", step=3)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_checkpoint_names_sort_by_step() -> None:
    assert checkpoint_name(99) == "checkpoint_00000099"
    assert sorted(checkpoint_name(step) for step in (100, 99, 1000)) == [
        checkpoint_name(step) for step in (99, 100, 1000)
    ]
