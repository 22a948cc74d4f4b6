"""Frozen parameters, the parameter groups of the optimisers, and the learning rate schedule."""

from __future__ import annotations

import math

import pytest
import torch

from raysys.config.schema import TrainConfig
from raysys.errors import InputError
from raysys.train.model.muon import CpuMuon
from raysys.train.model.optim import freeze, learning_rate_factor, make_optimizers


def towers() -> torch.nn.Module:
    """A model with the names of a SigLIP; every weight matrix has a different shape."""
    layer = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(3, 4)])})
    vision = torch.nn.ModuleDict({"encoder": layer, "embeddings": torch.nn.Linear(5, 6)})
    text = torch.nn.ModuleDict({"layers": torch.nn.ModuleList([torch.nn.Linear(7, 8)])})
    model = torch.nn.ModuleDict({"vision_model": vision, "text_model": text})
    model.register_parameter("logit_scale", torch.nn.Parameter(torch.zeros(1)))
    return model


def shapes(group: dict[str, list[torch.Tensor]]) -> list[tuple[int, ...]]:
    return sorted(tuple(parameter.shape) for parameter in group["params"])


def test_adamw_decays_only_matrices() -> None:
    section = TrainConfig(learning_rate=3e-4, weight_decay=0.1, beta2=0.9)
    (adamw,) = make_optimizers(towers(), section)
    matrices, others, loss_parameters = adamw.param_groups
    assert shapes(matrices) == [(4, 3), (6, 5), (8, 7)]
    assert shapes(others) == [(4,), (6,), (8,)]
    assert shapes(loss_parameters) == [(1,)]
    assert (matrices["weight_decay"], others["weight_decay"]) == (0.1, 0.0)
    assert (matrices["lr"], matrices["betas"]) == (3e-4, (0.9, 0.9))


def test_muon_updates_the_matrices_of_the_image_layers() -> None:
    section = TrainConfig(optimizer="muon", muon_learning_rate=0.02, weight_decay=0.1)
    muon, adamw = make_optimizers(towers(), section)
    assert isinstance(muon, CpuMuon)
    assert shapes(muon.param_groups[0]) == [(4, 3)]
    assert (muon.param_groups[0]["lr"], muon.param_groups[0]["weight_decay"]) == (0.02, 0.1)
    assert shapes(adamw.param_groups[0]) == [(6, 5), (8, 7)]
    assert shapes(adamw.param_groups[1]) == [(4,), (6,), (8,)]


def test_frozen_parameters_are_in_no_group() -> None:
    model = towers()
    model.get_parameter("vision_model.embeddings.bias").requires_grad_(False)
    (adamw,) = make_optimizers(model, TrainConfig())
    assert shapes(adamw.param_groups[1]) == [(4,), (8,)]


def test_scale_and_bias_of_the_loss_have_a_separate_learning_rate() -> None:
    (adamw,) = make_optimizers(towers(), TrainConfig(learning_rate=1e-4, logit_scale_learning_rate=1e-2))
    rates = [(group["lr"], group["weight_decay"]) for group in adamw.param_groups]
    assert rates == [(1e-4, 1e-4), (1e-4, 0.0), (1e-2, 0.0)]
    (adamw,) = make_optimizers(towers(), TrainConfig(learning_rate=1e-4))
    assert adamw.param_groups[2]["lr"] == 1e-4


def deep() -> torch.nn.Module:
    """Three layers in the image tower and one in the text tower, with embeddings and a head."""

    def tower(depth: int) -> torch.nn.ModuleDict:
        layers = torch.nn.ModuleList([torch.nn.Linear(2, 2, bias=False) for _ in range(depth)])
        encoder = torch.nn.ModuleDict({"layers": layers})
        parts = {name: torch.nn.Linear(2, 2, bias=False) for name in ("embeddings", "head")}
        # The names match those of a SigLIP: `embeddings.` and `.layers.N.`.
        return torch.nn.ModuleDict({**parts, "encoder": encoder})

    return torch.nn.ModuleDict({"vision_model": tower(3), "text_model": tower(1)})


def trained(model: torch.nn.Module) -> list[str]:
    return [name.removesuffix(".weight") for name, p in model.named_parameters() if p.requires_grad]


def test_lower_layers_are_frozen_first() -> None:
    model = deep()
    freeze(model, TrainConfig(frozen_image_layers=2, frozen_text_layers="all"))
    assert trained(model) == ["vision_model.head", "vision_model.encoder.layers.2"]


def test_nothing_is_frozen_by_default() -> None:
    model = deep()
    freeze(model, TrainConfig())
    assert len(trained(model)) == 8


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            TrainConfig(frozen_image_layers=4),
            "train.frozen_image_layers: 4, but the image tower has 3 layers; lower it",
        ),
        (
            TrainConfig(frozen_image_layers="all", frozen_text_layers="all"),
            "train.frozen_text_layers: all, as in the image tower; train at least one tower",
        ),
    ],
)
def test_invalid_frozen_layers_are_refused(section: TrainConfig, message: str) -> None:
    with pytest.raises(InputError) as caught:
        freeze(deep(), section)
    assert str(caught.value) == message


def test_layer_decay_lowers_the_learning_rate_of_lower_layers() -> None:
    model = deep()
    (adamw,) = make_optimizers(model, TrainConfig(learning_rate=1.0, layer_decay=0.5))
    rates = {parameter: group["lr"] for group in adamw.param_groups for parameter in group["params"]}
    assert {name.removesuffix(".weight"): rates[p] for name, p in model.named_parameters()} == {
        "vision_model.head": 1.0,
        "vision_model.encoder.layers.2": 0.5,
        "vision_model.encoder.layers.1": 0.25,
        "vision_model.encoder.layers.0": 0.125,
        "vision_model.embeddings": 0.0625,
        "text_model.head": 1.0,
        "text_model.encoder.layers.0": 0.5,
        "text_model.embeddings": 0.25,
    }


def test_schedule_rises_linearly_then_follows_a_cosine() -> None:
    factor = learning_rate_factor(num_steps=10, warmup_fraction=0.2)  # two steps of warm-up, eight of decay
    by_hand = {
        0: 1 / 2,
        1: 1.0,
        2: 1.0,
        4: 0.5 * (1 + math.cos(math.pi / 4)),  # 2 of 8
        6: 0.5,  # 4 of 8
        9: 0.5 * (1 + math.cos(math.pi * 7 / 8)),
        10: 0.0,
        11: 0.0,
    }
    assert {step: factor(step) for step in by_hand} == pytest.approx(by_hand)


def test_schedule_without_warm_up_starts_at_the_peak() -> None:
    factor = learning_rate_factor(num_steps=4, warmup_fraction=0.0)
    assert [factor(step) for step in range(4)] == pytest.approx([1.0, 1.0, 0.75, 0.25])


def test_schedule_of_warm_up_alone_only_rises() -> None:
    factor = learning_rate_factor(num_steps=4, warmup_fraction=1.0)
    assert [factor(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
