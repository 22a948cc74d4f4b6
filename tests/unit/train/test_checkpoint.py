"""What was saved is what comes back, and half a checkpoint is none."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from accelerate import Accelerator

from raysys.config.schema import TrainConfig
from raysys.train.checkpoint import TrainingState, checkpoint_name, load_weights, newest_step
from raysys.train.engine import Engine
from raysys.train.optim import learning_rate_factor, make_optimizers


def fresh_state(seed: int) -> TrainingState:
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2))
    optimizers = make_optimizers(model, TrainConfig(learning_rate=0.1))
    factor = learning_rate_factor(8, 0.25)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizers[0], factor)
    return TrainingState(Engine(Accelerator(cpu=True), model, model, optimizers, [schedule], base=None))


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


def test_restored_run_goes_on_bit_for_bit(tmp_path: Path) -> None:
    undisturbed, saved, restored = fresh_state(1), fresh_state(1), fresh_state(2)
    trained(undisturbed, 0, 6)
    trained(saved, 0, 3)
    saved.save(tmp_path, step=3)
    assert restored.load(tmp_path) == 3
    trained(restored, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(weights(undisturbed), weights(restored), strict=True))
    assert restored.engine.schedules[0].get_last_lr() == undisturbed.engine.schedules[0].get_last_lr()


def test_weights_alone_can_be_taken_over(tmp_path: Path) -> None:
    saved, other = fresh_state(1), fresh_state(2)
    saved.save(tmp_path, step=0)
    assert load_weights(other.engine.model, tmp_path) == 0
    assert all(torch.equal(a, b) for a, b in zip(weights(saved), weights(other), strict=True))


def test_newest_step_counts_registered_checkpoints_alone(tmp_path: Path) -> None:
    registered = [{"checkpoint_dir_name": checkpoint_name(step), "metrics": {}} for step in (20, 100)]
    (tmp_path / "checkpoint_manager_snapshot.json").write_text(json.dumps({"checkpoint_results": registered}))
    (tmp_path / checkpoint_name(120)).mkdir()  # its upload was cut off
    assert newest_step(str(tmp_path)) == 100


def test_run_without_a_checkpoint_starts_at_0(tmp_path: Path) -> None:
    assert newest_step(str(tmp_path / "nothing")) == 0
    (tmp_path / checkpoint_name(5)).mkdir()
    assert newest_step(str(tmp_path)) == 0
    (tmp_path / "checkpoint_manager_snapshot.json").write_text('{"checkpoint_results": []}')
    assert newest_step(str(tmp_path)) == 0


def test_names_of_checkpoints_sort_as_their_steps_do() -> None:
    assert checkpoint_name(99) == "checkpoint_00000099"
    assert sorted(checkpoint_name(step) for step in (100, 99, 1000)) == [
        checkpoint_name(step) for step in (99, 100, 1000)
    ]
