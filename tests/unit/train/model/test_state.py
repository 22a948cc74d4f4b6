"""The training state on one worker: averages, LoRA, frozen parts, compilation, and restarts from its state."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from raysys.config.schema import LoraConfig, RobustConfig, TrainConfig
from raysys.encoder.siglip import load_model
from raysys.errors import InputError
from raysys.train.model import lora
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import train_step
from tests.unit.train.small_model import (
    IMAGE,
    build_small_model,
    exported_weights,
    forget_compiled,
    small_batch,
    small_section,
    small_state,
)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


def test_frozen_start_of_distillation_does_not_change(start: Path) -> None:
    section = small_section(method="distil")
    state = small_state(start, section)
    assert state.start is not None
    before = [parameter.clone() for parameter in state.start.parameters()]
    train_step(state, small_batch(), section)
    assert not any(parameter.requires_grad for parameter in state.start.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, state.start.parameters(), strict=True))


def test_moving_average_by_hand(start: Path) -> None:
    state = small_state(start, small_section(ema_decay=0.75))
    name = "vision_model.post_layernorm.weight"
    weights = [state.model.get_parameter(name).detach().clone()]
    for seed in (1, 2):
        train_step(state, small_batch(seed), small_section())
        weights.append(state.model.get_parameter(name).detach().clone())
    first = 0.75 * weights[0] + 0.25 * weights[1]
    expected = 0.75 * first + 0.25 * weights[2]
    assert float((weights[2] - expected).abs().max()) > 1e-4
    saved = state.state_dict()
    torch.testing.assert_close(saved["ema"][name], expected, rtol=0, atol=2.4e-7)  # two roundings near 1
    assert torch.equal(saved["weights"][name], saved["ema"][name])
    assert torch.equal(saved["model"][name], weights[2])


@pytest.fixture(params=["full", "averaged", "lora"])
def section(request: pytest.FixtureRequest) -> TrainConfig:
    changes: dict[str, dict[str, Any]] = {
        "full": {},
        "averaged": {"ema_decay": 0.5},
        "lora": {"lora": LoraConfig(rank=2), "ema_decay": 0.5, "learning_rate": 0.01},
    }
    return small_section(**changes[request.param])


def test_restored_state_continues_bit_for_bit(start: Path, section: TrainConfig) -> None:
    uninterrupted, saved, restored = (small_state(start, section) for _ in range(3))
    for seed in range(4):
        train_step(uninterrupted, small_batch(seed), section)
    for seed in range(2):
        train_step(saved, small_batch(seed), section)
    state = saved.state_dict()
    train_step(saved, small_batch(9), section)  # must not change the copy in `state`
    restored.load_state_dict(state)
    for seed in range(2, 4):
        train_step(restored, small_batch(seed), section)
    expected, weights = (exported_weights(one.state_dict()) for one in (uninterrupted, restored))
    assert expected.keys() == weights.keys() == load_model(start).state_dict().keys()
    assert all(torch.equal(weights[name], value) for name, value in expected.items())


def test_only_rank_0_copies_its_state(start: Path) -> None:
    state = small_state(start, small_section(ema_decay=0.5))
    train_step(state, small_batch(), small_section())
    other_rank = dataclasses.replace(state, accelerator=SimpleNamespace(is_main_process=False))
    with Copies() as copies:
        assert other_rank.state_dict() == {}
    assert copies.num_copies == 0
    with Copies() as copies:
        state.state_dict()
    num_tensors = len(state.model.state_dict())
    num_trained = len(list(state.model.parameters()))
    # The weights, AdamW's step and two averages, and the average of the weights.
    assert copies.num_copies == num_tensors + 4 * num_trained


class Copies(TorchDispatchMode):
    """Counts copied tensors."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not type it
        self.num_copies = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_copies += func is torch.ops.aten._to_copy.default
        return func(*args, **(kwargs or {}))


def test_merged_lora_equals_the_trained_model(start: Path) -> None:
    section = small_section(lora=LoraConfig(rank=2, alpha=6.0), learning_rate=0.05)
    state = small_state(start, section)
    before = load_model(start).state_dict()
    for seed in range(3):
        train_step(state, small_batch(seed), section)
    merged_model = load_model(start)
    merged_model.load_state_dict(exported_weights(state.state_dict()))
    changed = {
        name for name, value in merged_model.state_dict().items() if not torch.equal(value, before[name])
    }
    layers = ("text_model.encoder.layers.0", "vision_model.encoder.layers.0", "vision_model.encoder.layers.1")
    assert changed == {"logit_scale", "logit_bias"} | {
        f"{layer}.self_attn.{matrix}.weight" for layer in layers for matrix in ("q_proj", "v_proj")
    }
    batch = small_batch()
    with torch.no_grad():
        trained, merged = (
            towers(batch["pixels"], batch["tokens"])
            for towers in (state.towers, DualEncoder(merged_model, IMAGE))
        )
    torch.testing.assert_close(trained.images, merged.images, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trained.captions, merged.captions, rtol=1e-4, atol=1e-5)


def test_lora_on_unknown_layers_is_refused(start: Path) -> None:
    with pytest.raises(InputError, match=r"train.lora.target_modules: nothing: peft cannot update these"):
        small_state(start, small_section(lora=LoraConfig(target_modules=("nothing",))))


def test_lora_without_peft_is_refused(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError) as caught:
        lora.add_lora(load_model(start), LoraConfig())
    message = "train.lora: needs peft, which is not installed; pip install peft, or set train.lora=null"
    assert str(caught.value) == message


def test_method_top_layers_trains_only_the_top_layers(start: Path) -> None:
    section = small_section(method="top_layers", robust=RobustConfig(top_layers=1))
    state = small_state(start, section)
    names = [name for name, _ in state.model.named_parameters()]
    frozen = {name for name, parameter in state.model.named_parameters() if not parameter.requires_grad}
    expected = ("embeddings", "vision_model.encoder.layers.0")
    assert frozen == {name for name in names if any(part in name for part in expected)}
    before = state.state_dict()["model"]
    train_step(state, small_batch(), section)
    after = state.state_dict()["model"]
    assert {name for name in before if torch.equal(before[name], after[name])} == frozen


def test_compiled_towers_take_the_same_steps_and_compile_once(
    start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The backend `eager` traces without compiling, so that no g++ is needed.
    monkeypatch.setattr(DualEncoder.compile_towers, "__defaults__", ("eager",))
    require_compiled_once(start)


def require_compiled_once(start: Path) -> None:
    """Three steps with different numbers of distinct captions; only the first step compiles.

    On a CPU that is a layer of the image tower.
    """
    forget_compiled()
    section = small_section(micro_batch_size=3, activation_checkpointing="selective")
    losses: dict[bool, list[float]] = {}
    for is_compiled in (False, True):
        state = small_state(start, section.model_copy(update={"compile": is_compiled}))
        assert state.model.state_dict().keys() == load_model(start).state_dict().keys()
        for seed in range(3):
            batch = small_batch(seed)
            batch["tokens"][seed:] = batch["tokens"][seed]
            with torch._dynamo.config.patch(error_on_recompile=is_compiled and seed > 0):
                losses.setdefault(is_compiled, []).append(train_step(state, batch, section).metrics()["loss"])
    # The layers share a graph; with and without gradients.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)


@pytest.mark.parametrize("kind", ["none", "selective", "full"])
def test_layers_that_are_computed_again_are_compiled_too(
    start: Path, kind: Literal["none", "selective", "full"]
) -> None:
    forget_compiled()
    losses = []
    for is_compiled in (False, True):
        state = small_state(start, small_section(activation_checkpointing=kind))
        assert isinstance(state.towers, DualEncoder)
        if is_compiled:
            state.towers.compile_layers(backend="eager")
        losses.append(train_step(state, small_batch(), small_section()).metrics()["loss"])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 2  # one for each tower's layers
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
