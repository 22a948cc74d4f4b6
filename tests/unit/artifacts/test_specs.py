"""What makes another run, what makes another bundle of the same run, and which bundle is delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raysys.artifacts import InputEntry, specs
from raysys.artifacts.layout import ArtifactLayout
from raysys.config import Config
from tests.factories import tiny_bundle
from tests.shards_by_hand import write_shard_set


@pytest.fixture
def all_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards and start are there."""
    monkeypatch.setattr(specs, "as_input", lambda uri, _: InputEntry(uri=uri, fingerprint=uri))


def recipes(root: str = "/data", **changed: Any) -> tuple[str, str]:
    """The run's and the bundle's."""
    sections = {name: changed.pop(name) for name in ("encoder", "stream") if name in changed}
    config = Config.model_validate({"name": "shop", "root": root, "train": changed, **sections})
    return specs.training_run(config).spec_hash, specs.tuned_encoder(config).spec_hash


@pytest.mark.parametrize(
    "changed",
    [
        {"workers": 4, "min_workers": 2},
        {"use_gpu": True, "compile": True, "activation_checkpointing": True},
        {"parallel": "fsdp"},
        {"micro_batch_size": 64, "on_out_of_memory": "halve"},
        {"loss_exchange": "gather", "loss_tile_rows": 64},
        {"log_every_steps": 1, "checkpoint_every_epochs": 0.5, "checkpoint_every_minutes": None},
        {"validation": {"num_gpus": 1, "timeout_s": 60}},
        {"on_config_change": "restart", "collective_timeout_s": 60, "max_failures": 0},
        {"robust": {"distil_weight": 2.0, "top_layers": 1}},  # of other recipes
    ],
)
@pytest.mark.usefixtures("all_made")
def test_neither_run_nor_bundle_is_another(changed: dict[str, Any]) -> None:
    assert recipes(**changed) == recipes()


@pytest.mark.parametrize(
    "changed",
    [
        {"epochs": 7},
        {"validation": {"score": "r@1"}},
        {"validation": {"patience": 2}},
    ],
)
@pytest.mark.usefixtures("all_made")
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
        {"method": "distil"},
        {"lora": {"rank": 8}},
        {"caption_weights": {"brand": 0.5}},
        {"stream": {"shuffle_window_shards": 3}},
        {"encoder": {"seed": 8}},
        {"root": "/other"},  # whose shards have another fingerprint here
    ],
)
@pytest.mark.usefixtures("all_made")
def test_run_is_another_and_so_is_its_bundle(changed: dict[str, Any]) -> None:
    assert not set(recipes()) & set(recipes(**changed))


@pytest.mark.usefixtures("all_made")
def test_settings_of_a_recipe_count_for_that_recipe() -> None:
    distil = {"method": "distil"}
    assert recipes(**distil, robust={"distil_weight": 2.0}) != recipes(**distil)
    assert recipes(**distil, robust={"top_layers": 1}) == recipes(**distil)


@pytest.mark.usefixtures("all_made")
def test_what_a_run_says_has_the_names_of_the_configuration() -> None:
    run = specs.training_run(Config.model_validate({"name": "shop", "root": "/data"}))
    assert run.settings["train"]["learning_rate"] == 1e-5
    assert run.settings["train"]["method"] == "full"  # wise_ft trains as it does
    assert run.settings["encoder"]["seed"] == Config().encoder.seed
    assert run.uri == f"/data/runs/shop/{run.spec_hash[:12]}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with shards, a start, and what was fine-tuned from it."""
    root = tmp_path_factory.mktemp("root")
    for split in ("train", "val", "guard"):
        write_shard_set(root / "shards" / split, ["a", "b"], split=split)
    for name in ("start", "tuned"):
        tiny_bundle(root / "encoders" / f"x-{name}", ["a cup", "a hat"])
    return root


def config_of(root: Path, **train: Any) -> Config:
    return Config.model_validate({"name": "x", "root": str(root), "train": train})


def test_the_way_back_is_made_from_the_fine_tuned_bundle_beside_it(root: Path) -> None:
    config, layout = config_of(root), ArtifactLayout(str(root), "x")
    tuned, delivered = specs.tuned_encoder(config), specs.encoder(config)
    assert (tuned.uri, delivered.uri) == (f"{root}/encoders/x-tuned", f"{root}/encoders/x")
    assert {entry.uri for entry in delivered.inputs.values()} == {
        layout.start_encoder, layout.tuned_encoder, layout.shards("val")
    }  # fmt: skip


@pytest.mark.parametrize("method", ["full", "distil", "top_layers"])
def test_other_recipes_deliver_what_was_trained(root: Path, method: str) -> None:
    config = config_of(root, method=method)
    assert specs.encoder(config) == specs.tuned_encoder(config)
    assert specs.encoder(config).uri == f"{root}/encoders/x"


def test_both_recipes_share_a_training(root: Path) -> None:
    made = {specs.tuned_encoder(config_of(root, method=method)).spec_hash for method in ("full", "wise_ft")}
    assert len(made) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"robust": {"interpolation_steps": 3}},
        {"robust": {"guard_items": 9}},
        {"robust": {"max_guard_drop": 0.5}},
        {"validation": {"score": "r@1"}},
        {"validation": {"items": 9}},
    ],
)
def test_another_way_of_choosing_trains_nothing_again(root: Path, changed: dict[str, Any]) -> None:
    before, after = config_of(root), config_of(root, **changed)
    assert specs.training_run(before).spec_hash == specs.training_run(after).spec_hash
    assert specs.encoder(before).spec_hash != specs.encoder(after).spec_hash


def test_a_guard_of_ones_own_is_an_input(root: Path) -> None:
    config = config_of(root, robust={"guard": f"{root}/shards/guard"})
    assert specs.encoder(config).inputs["guard"].uri == f"{root}/shards/guard"


def test_a_log_that_decides_nothing_changes_nothing(root: Path) -> None:
    def spec_hash(score: str | None, queries: int) -> str:
        config = config_of(root, validation={"score": score})
        log = config.evaluate.log.model_copy(update={"queries": queries})
        judged = config.evaluate.model_copy(update={"log": log})
        return specs.encoder(config.model_copy(update={"evaluate": judged})).spec_hash

    assert spec_hash("r@5", 10) == spec_hash("r@5", 20)
    assert spec_hash(None, 10) != spec_hash(None, 20)
