"""What makes another run, what makes another bundle of the same run, and what makes neither."""

from __future__ import annotations

from typing import Any

import pytest

from raysys import targets
from raysys.artifacts import InputEntry
from raysys.config import Config


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards and start are there."""
    monkeypatch.setattr(targets, "as_input", lambda uri, _: InputEntry(uri=uri, fingerprint=uri))


def recipes(root: str = "/data", **changed: Any) -> tuple[str, str]:
    """The run's and the bundle's."""
    sections = {name: changed.pop(name) for name in ("encoder", "stream") if name in changed}
    config = Config.model_validate({"name": "shop", "root": root, "train": changed, **sections})
    return targets.training_run(config).recipe, targets.tuned_encoder(config).recipe


@pytest.mark.parametrize(
    "changed",
    [
        {"workers": 4, "min_workers": 2},
        {"use_gpu": True, "parallel": "fsdp", "compile": True, "activation_checkpointing": True},
        {"micro_batch_size": 64, "on_out_of_memory": "halve"},
        {"loss_exchange": "gather", "loss_tile_rows": 64},
        {"log_every_steps": 1, "checkpoint_every_epochs": 0.5, "checkpoint_every_minutes": None},
        {"validation": {"num_gpus": 1, "timeout_s": 60}},
        {"changed": "restart", "collective_timeout_s": 60, "max_failures": 0},
        {"robust": {"distil_weight": 2.0, "top_layers": 1}},  # of other recipes
    ],
)
def test_neither_run_nor_bundle_is_another(changed: dict[str, Any]) -> None:
    assert recipes(**changed) == recipes()


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 7},
        {"recipe": "full"},
        {"robust": {"interpolation_steps": 5}},
        {"validation": {"score": "r@1"}},
        {"validation": {"patience": 2}},
    ],
)
def test_bundle_is_another_of_the_same_run(changed: dict[str, Any]) -> None:
    (run, bundle), (same_run, other_bundle) = recipes(), recipes(**changed)
    assert run == same_run
    assert bundle != other_bundle


@pytest.mark.parametrize(
    "changed",
    [
        {"learning_rate": 3e-5},
        {"batch_size": 512},
        {"precision": "bf16"},
        {"ema_decay": 0.9},
        {"recipe": "distil"},
        {"lora": {"rank": 8}},
        {"caption_weights": {"brand": 0.5}},
        {"stream": {"shuffle_window_shards": 3}},
        {"encoder": {"seed": 8}},
        {"root": "/other"},  # whose shards have another fingerprint here
    ],
)
def test_run_is_another_and_so_is_its_bundle(changed: dict[str, Any]) -> None:
    assert not set(recipes()) & set(recipes(**changed))


def test_settings_of_a_recipe_count_for_that_recipe() -> None:
    distil = {"recipe": "distil"}
    assert recipes(**distil, robust={"distil_weight": 2.0}) != recipes(**distil)
    assert recipes(**distil, robust={"top_layers": 1}) == recipes(**distil)


def test_what_a_run_says_has_the_names_of_the_configuration() -> None:
    run = targets.training_run(Config.model_validate({"name": "shop", "root": "/data"}))
    assert run.said["train"]["learning_rate"] == 1e-5
    assert run.said["train"]["recipe"] == "full"  # wise_ft trains as it does
    assert run.said["encoder"]["seed"] == Config().encoder.seed
    assert run.uri == f"/data/runs/shop/{run.recipe[:12]}"
