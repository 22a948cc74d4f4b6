"""One step on one worker: the ways to save memory give the same gradients, the recipes those of autograd."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from raysys.config.schema import LoraConfig, RobustConfig, TinyConfig, TrainConfig
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.siglip import load_model
from raysys.encoder.tiny import build_tiny
from raysys.errors import InputError
from raysys.train.loss import dense_loss, local_pairs
from raysys.train.model import TrainState, lora, make_train_state
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.step import backward, train_step

IMAGE = ImagePreprocessing(size_px=16)
KEYS = torch.tensor([[5, 1], [6, 2], [5, 0], [0, 0], [7, 1], [8, 2]])  # the fourth was skipped


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "tiny"
    build_start(folder)
    return folder


def build_start(folder: Path) -> None:
    """Write a model of a few thousand weights."""
    size = TinyConfig(
        image_size_px=16, hidden_size=16, num_layers=2, num_heads=2, text_num_layers=1, vocab_size=60, max_length=6
    )  # fmt: skip
    titles = [f"{colour} {what}" for colour in ("red", "green", "blue") for what in ("dress", "cup", "shoe")]
    build_tiny(folder, titles * 3, size, seed=7)


def section(**changes: Any) -> TrainConfig:
    return TrainConfig(
        **{"batch_size": 6, "caption_weights": {"colour": 0.5}, "learning_rate": 1e-3, **changes}
    )


def batch(seed: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "pixels": torch.randint(0, 256, (6, 16, 16, 3), dtype=torch.uint8, generator=generator),
        "tokens": torch.randint(3, 14, (6, 2, 6), generator=generator),
        "caption_keys": KEYS,
        "group_keys": torch.arange(6),
    }


def engine(start: Path, how: TrainConfig) -> TrainState:
    return make_train_state(str(start), IMAGE, how, 8, Accelerator(cpu=True))


def gradients(towers: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in towers.named_parameters() if p.grad is not None}


def moved(model: torch.nn.Module) -> None:
    """Weights that are no longer those of the start."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def test_layers_computed_again_have_the_same_gradients(start: Path) -> None:
    plain, saving = (engine(start, section(activation_checkpointing=again)) for again in (False, True))
    calls = []
    saving.model.vision_model.encoder.layers[0].layer_norm1.register_forward_hook(lambda *_: calls.append(1))
    for one in (plain, saving):
        backward(one.towers, batch(), section())
    assert len(calls) == 2  # on the way there, and again on the way back
    for name, gradient in gradients(plain.towers).items():
        assert torch.equal(gradients(saving.towers)[name], gradient)


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_distillation_has_the_gradients_of_autograd(start: Path, micro_batch_size: int | None) -> None:
    how = section(
        method="distil", robust=RobustConfig(distil_weight=3.0), micro_batch_size=micro_batch_size, caption_weights={}
    )  # fmt: skip
    one = engine(start, how)
    moved(one.model)
    rows = {**batch(), "tokens": batch()["tokens"][:, :1], "caption_keys": KEYS[:, :1]}
    assert one.base is not None
    share = backward(one.towers, rows, how, one.base)
    other = DualEncoder(copy.deepcopy(one.model), IMAGE)
    other.zero_grad()
    now, then = (
        towers(rows["pixels"], rows["tokens"]) for towers in (other, DualEncoder(load_model(start), IMAGE))
    )
    pairs = local_pairs(
        now.images, now.captions[:, 0], KEYS[:, 0], torch.arange(6),
        first_row=0, all_keys=KEYS[:, 0], all_groups=torch.arange(6),
    )  # fmt: skip
    loss = dense_loss(pairs, pairs, how.false_negatives, scale=now.scale, bias=now.bias, num_images=6)
    there = [0, 1, 2, 4, 5]
    gone = (now.images - then.images.detach())[there].square().sum()
    gone = gone + (now.captions - then.captions.detach())[there].square().sum()
    assert float(gone.detach()) > 1e-3
    (loss + 3.0 * gone / 6).backward()
    assert float(share) == pytest.approx(float((loss + 3.0 * gone / 6).detach()), rel=1e-5)
    wanted = gradients(other)
    whole = torch.stack([gradient.norm() for gradient in wanted.values()]).norm()
    for name, gradient in gradients(one.towers).items():
        assert float((gradient - wanted[name]).norm()) < 1e-5 * float(whole), name


def test_start_is_neither_trained_nor_moved(start: Path) -> None:
    one = engine(start, section(method="distil"))
    assert one.base is not None
    before = [parameter.clone() for parameter in one.base.parameters()]
    train_step(one, batch(), section(method="distil"))
    assert not any(parameter.requires_grad for parameter in one.base.parameters())
    assert all(torch.equal(a, b) for a, b in zip(before, one.base.parameters(), strict=True))


def test_average_by_hand(start: Path) -> None:
    one = engine(start, section(ema_decay=0.75))
    name = "vision_model.post_layernorm.weight"
    weights = [one.model.get_parameter(name).detach().clone()]
    for seed in (1, 2):
        train_step(one, batch(seed), section())
        weights.append(one.model.get_parameter(name).detach().clone())
    first = 0.75 * weights[0] + 0.25 * weights[1]
    wanted = 0.75 * first + 0.25 * weights[2]
    assert float((weights[2] - wanted).abs().max()) > 1e-4
    torch.testing.assert_close(one.weights()[name], wanted, rtol=0, atol=2.4e-7)  # two roundings near 1
    state = one.state_dict()
    assert torch.equal(state["weights"][name], state["ema"][name])
    assert torch.equal(state["model"][name], weights[2])


@pytest.fixture(params=["full", "averaged", "lora"])
def how(request: pytest.FixtureRequest) -> TrainConfig:
    ways: dict[str, dict[str, Any]] = {
        "full": {},
        "averaged": {"ema_decay": 0.5},
        "lora": {"lora": LoraConfig(rank=2), "ema_decay": 0.5, "learning_rate": 0.01},
    }
    return section(**ways[request.param])


def test_engine_goes_on_bit_for_bit_from_its_state(start: Path, how: TrainConfig) -> None:
    undisturbed, saved, restored = (engine(start, how) for _ in range(3))
    for seed in range(4):
        train_step(undisturbed, batch(seed), how)
    for seed in range(2):
        train_step(saved, batch(seed), how)
    state = saved.state_dict()
    train_step(saved, batch(9), how)  # what was taken is a copy
    restored.load_state_dict(state)
    for seed in range(2, 4):
        train_step(restored, batch(seed), how)
    wanted, found = undisturbed.weights(), restored.weights()
    assert wanted.keys() == found.keys() == load_model(start).state_dict().keys()
    assert all(torch.equal(found[name], value) for name, value in wanted.items())


def test_merged_updates_are_the_model_that_was_trained(start: Path) -> None:
    how = section(lora=LoraConfig(rank=2, alpha=6.0), learning_rate=0.05)
    one = engine(start, how)
    before = load_model(start).state_dict()
    for seed in range(3):
        train_step(one, batch(seed), how)
    plain = load_model(start)
    plain.load_state_dict(one.weights())
    changed = {name for name, value in plain.state_dict().items() if not torch.equal(value, before[name])}
    layers = ("text_model.encoder.layers.0", "vision_model.encoder.layers.0", "vision_model.encoder.layers.1")
    assert changed == {"logit_scale", "logit_bias"} | {
        f"{layer}.self_attn.{matrix}.weight" for layer in layers for matrix in ("q_proj", "v_proj")
    }
    with torch.no_grad():
        trained, merged = (
            towers(batch()["pixels"], batch()["tokens"]) for towers in (one.towers, DualEncoder(plain, IMAGE))
        )
    torch.testing.assert_close(trained.images, merged.images, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(trained.captions, merged.captions, rtol=1e-4, atol=1e-5)


def test_updates_of_unknown_layers_are_refused(start: Path) -> None:
    with pytest.raises(InputError, match=r"train.lora.target_modules: nothing: peft cannot update these"):
        engine(start, section(lora=LoraConfig(target_modules=("nothing",))))


def test_missing_peft_is_one_line(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(InputError) as caught:
        lora.add_updates(load_model(start), LoraConfig())
    message = "train.lora: needs peft, which is not installed; pip install peft, or set train.lora=null"
    assert str(caught.value) == message


def test_top_layers_alone_are_trained(start: Path) -> None:
    how = section(method="top_layers", robust=RobustConfig(top_layers=1))
    one = engine(start, how)
    still = {name for name, parameter in one.model.named_parameters() if not parameter.requires_grad}
    wanted = ("embeddings", "vision_model.encoder.layers.0")
    assert still == {name for name, _ in one.model.named_parameters() if any(part in name for part in wanted)}
    before = one.state_dict()["model"]
    train_step(one, batch(), how)
    after = one.state_dict()["model"]
    assert {name for name in before if torch.equal(before[name], after[name])} == still


def test_compiled_towers_take_the_same_steps_and_compile_once(
    start: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DualEncoder.compile_towers, "__defaults__", ("eager",))  # what is traced, without g++
    require_compiled_once(start, monkeypatch)


def require_compiled_once(start: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three steps, the captions of each repeated as often as they like; what is compiled is so in the first."""
    torch._dynamo.reset()
    how = section(micro_batch_size=3)
    losses: dict[bool, list[float]] = {}
    for is_compiled in (False, True):
        one = engine(start, how.model_copy(update={"compile": is_compiled}))
        assert one.model.state_dict().keys() == load_model(start).state_dict().keys()
        for seed in range(3):
            rows = batch(seed)
            rows["tokens"][seed:] = rows["tokens"][seed]
            losses.setdefault(is_compiled, []).append(train_step(one, rows, how).loss)
            if is_compiled:
                monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    assert (
        torch._dynamo.utils.counters["stats"]["unique_graphs"] == 4
    )  # two towers, with and without gradients
    assert losses[True] == pytest.approx(losses[False], rel=1e-5)
