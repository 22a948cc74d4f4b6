"""The gradients of one step on one worker, compared with autograd, transformers and the full batch."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from raysys.config.schema import FalseNegativesConfig, RobustConfig, TrainConfig
from raysys.encoder.siglip import load_model, normalise
from raysys.train.loss import dense_loss, local_pairs
from raysys.train.model.dual_encoder import DualEncoder
from raysys.train.model.optim import freeze
from raysys.train.step import backward
from tests.unit.train.small_model import (
    IMAGE,
    KEYS,
    build_small_model,
    perturb,
    small_batch,
    small_section,
    small_state,
)

PUBLISHED = FalseNegativesConfig(equal_titles="negative", same_group="negative")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_small_model(tmp_path_factory.mktemp("start") / "tiny")


@pytest.fixture(scope="module")
def model(start: Path) -> Any:
    """A model without gradients; every test leaves it so."""
    return load_model(start)


def distinct_batch(num_pairs: int, kinds: int = 1) -> dict[str, Tensor]:
    """Pairs with distinct captions, each in a group of its own."""
    rng = np.random.default_rng(5)
    tokens = rng.integers(0, 14, (num_pairs, kinds, 6))
    return {
        "pixels": torch.from_numpy(rng.integers(0, 256, (num_pairs, 16, 16, 3), dtype=np.uint8)),
        "tokens": torch.from_numpy(tokens),
        "caption_keys": torch.from_numpy(np.arange(1, num_pairs * kinds + 1).reshape(num_pairs, kinds)),
        "group_keys": torch.arange(-num_pairs, 0),
    }


def named_grads(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def take_grads(model: Any) -> list[Tensor]:
    """The gradients of all parameters, which are then reset."""
    grads = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    return grads


# A layer has six products. No gradient needs the last one, the second of the MLP.
@pytest.mark.parametrize(("kind", "num_repeated"), [("selective", 0), ("full", 5)])
def test_activation_checkpointing_has_the_same_gradients(start: Path, kind: str, num_repeated: int) -> None:
    plain, checkpointed = (
        small_state(start, small_section(activation_checkpointing=one)) for one in ("none", kind)
    )
    norms: list[int] = []
    checkpointed.model.vision_model.encoder.layers[0].layer_norm1.register_forward_hook(
        lambda *_: norms.append(1)
    )
    with CountProducts() as plain_count:
        backward(plain.towers, small_batch(), small_section())
    with CountProducts() as count:
        backward(checkpointed.towers, small_batch(), small_section())
    assert len(norms) == 2  # in the forward pass, and again in the backward pass
    num_layers = len(DualEncoder(checkpointed.model, IMAGE).layers())
    assert count.num_products - plain_count.num_products == num_layers * num_repeated
    for name, grad in named_grads(plain.towers).items():
        assert torch.equal(named_grads(checkpointed.towers)[name], grad)


class CountProducts(TorchDispatchMode):
    """Counts the products of a linear layer's forward pass, which adds a bias."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch does not type it
        self.num_products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.num_products += func is torch.ops.aten.addmm.default
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("micro_batch_size", "num_rows"), [(None, 6), (3, 9), (2, 10), (1, 11)])
def test_last_micro_batch_runs_once_and_the_others_twice(
    start: Path, micro_batch_size: int | None, num_rows: int
) -> None:
    state = small_state(start, section := small_section(micro_batch_size=micro_batch_size))
    rows: list[int] = []
    state.towers.register_forward_hook(lambda _, inputs, __: rows.append(len(inputs[0])))
    backward(state.towers, small_batch(), section)
    assert sum(rows) == num_rows


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_distillation_has_the_gradients_of_autograd(start: Path, micro_batch_size: int | None) -> None:
    section = small_section(
        method="distil", robust=RobustConfig(distil_weight=3.0), micro_batch_size=micro_batch_size, caption_weights={}
    )  # fmt: skip
    state = small_state(start, section)
    perturb(state.model)
    batch = {**small_batch(), "tokens": small_batch()["tokens"][:, :1], "caption_keys": KEYS[:, :1]}
    assert state.start is not None
    loss = backward(state.towers, batch, section, state.start)["loss"]

    reference = DualEncoder(copy.deepcopy(state.model), IMAGE)
    reference.zero_grad()
    now, before = (
        towers(batch["pixels"], batch["tokens"])
        for towers in (reference, DualEncoder(load_model(start), IMAGE))
    )
    pairs = local_pairs(
        now.images, now.captions[:, 0], KEYS[:, 0], torch.arange(6),
        first_row=0, all_keys=KEYS[:, 0], all_groups=torch.arange(6),
    )  # fmt: skip
    sigmoid_loss = dense_loss(
        pairs, pairs, section.false_negatives, scale=now.scale, bias=now.bias, num_images=6
    )
    present = [0, 1, 2, 4, 5]
    distance = (now.images - before.images.detach())[present].square().sum()
    distance = distance + (now.captions - before.captions.detach())[present].square().sum()
    assert float(distance.detach()) > 1e-3
    expected_loss = sigmoid_loss + 3.0 * distance / 6
    expected_loss.backward()

    assert float(loss) == pytest.approx(float(expected_loss.detach()), rel=1e-5)
    expected = named_grads(reference)
    norm = torch.stack([grad.norm() for grad in expected.values()]).norm()
    for name, grad in named_grads(state.towers).items():
        assert float((grad - expected[name]).norm()) < 1e-5 * float(norm), name


def test_published_loss_equals_that_of_transformers(model: Any) -> None:
    batch = distinct_batch(5)
    section = TrainConfig(batch_size=5, false_negatives=PUBLISHED)
    loss = backward(DualEncoder(model, IMAGE), batch, section)["loss"]
    grads = take_grads(model)
    pixels = normalise(batch["pixels"], IMAGE)
    expected = model(input_ids=batch["tokens"][:, 0], pixel_values=pixels, return_loss=True).loss
    expected_grads = torch.autograd.grad(expected, list(model.parameters()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for grad, expected_grad in zip(grads, expected_grads, strict=True):
        torch.testing.assert_close(grad, expected_grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
def test_micro_batches_have_the_gradients_of_the_full_batch(model: Any, micro_batch_size: int) -> None:
    towers, batch = DualEncoder(model, IMAGE), distinct_batch(8, kinds=2)
    section = TrainConfig(batch_size=8, caption_weights={"colour": 0.5})
    full_loss = backward(towers, batch, section)["loss"]
    full_grads = take_grads(model)
    loss = backward(towers, batch, section.model_copy(update={"micro_batch_size": micro_batch_size}))["loss"]
    assert loss.item() == pytest.approx(full_loss.item(), rel=1e-6)
    norm = torch.stack([grad.norm() for grad in full_grads]).norm()
    for grad, full_grad in zip(take_grads(model), full_grads, strict=True):
        assert float((grad - full_grad).norm() / norm) < 1e-6


@pytest.mark.parametrize("micro_batch_size", [None, 2])
def test_frozen_tower_has_no_gradient_and_the_other_tower_the_same(
    model: Any, micro_batch_size: int | None
) -> None:
    towers, batch = DualEncoder(model, IMAGE), distinct_batch(4)
    section = TrainConfig(batch_size=4, micro_batch_size=micro_batch_size, frozen_text_layers="all")
    backward(towers, batch, section)
    names = [name for name, _ in model.named_parameters()]
    expected = dict(zip(names, take_grads(model), strict=True))
    freeze(model, section)
    backward(towers, batch, section)
    for name, parameter in model.named_parameters():
        if name.startswith("text_model."):
            assert parameter.grad is None or not parameter.grad.any()
        else:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-5, atol=1e-7)
    model.requires_grad_(True)
    model.zero_grad()


def test_each_kind_of_caption_adds_its_weighted_loss(model: Any) -> None:
    towers, batch = DualEncoder(model, IMAGE), distinct_batch(4, kinds=2)
    losses = []
    for kind in (slice(0, 1), slice(1, 2)):
        of_kind = {name: batch[name][:, kind] for name in ("tokens", "caption_keys")}
        losses.append(backward(towers, {**batch, **of_kind}, TrainConfig(batch_size=4))["loss"].item())
    both = backward(towers, batch, TrainConfig(batch_size=4, caption_weights={"colour": 0.5}))["loss"]
    model.zero_grad()
    assert both.item() == pytest.approx(losses[0] + 0.5 * losses[1], rel=1e-6)


def test_captions_embedded_together_equal_captions_embedded_alone(model: Any) -> None:
    towers, batch = DualEncoder(model, IMAGE), distinct_batch(4, kinds=2)
    batch["tokens"][:, 1] = batch["tokens"][0, 1]  # the same colour for all
    together = towers(batch["pixels"], batch["tokens"])
    for kind in (0, 1):
        alone = towers(batch["pixels"], batch["tokens"][:, kind : kind + 1])
        torch.testing.assert_close(together.captions[:, kind], alone.captions[:, 0], rtol=0, atol=1e-6)
