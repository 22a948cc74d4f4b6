"""Which bundle is delivered, and what has to be made again when a setting changes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raysys import targets
from raysys.config import Config
from raysys.places import Places
from tests.made import tiny_bundle
from tests.shards_by_hand import write_shard_set


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
    config, places = config_of(root), Places(str(root), "x")
    tuned, delivered = targets.tuned_encoder(config), targets.encoder(config)
    assert (tuned.uri, delivered.uri) == (f"{root}/encoders/x-tuned", f"{root}/encoders/x")
    assert {entry.uri for entry in delivered.inputs.values()} == {
        places.start_encoder, places.tuned_encoder, places.shards("val")
    }  # fmt: skip


@pytest.mark.parametrize("recipe", ["full", "distil", "top_layers"])
def test_other_recipes_deliver_what_was_trained(root: Path, recipe: str) -> None:
    config = config_of(root, recipe=recipe)
    assert targets.encoder(config) == targets.tuned_encoder(config)
    assert targets.encoder(config).uri == f"{root}/encoders/x"


def test_both_recipes_share_a_training(root: Path) -> None:
    recipes = {targets.tuned_encoder(config_of(root, recipe=recipe)).recipe for recipe in ("full", "wise_ft")}
    assert len(recipes) == 1


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
    assert targets.tuned_encoder(before).recipe == targets.tuned_encoder(after).recipe
    assert targets.encoder(before).recipe != targets.encoder(after).recipe


def test_a_guard_of_ones_own_is_an_input(root: Path) -> None:
    config = config_of(root, robust={"guard": f"{root}/shards/guard"})
    assert targets.encoder(config).inputs["guard"].uri == f"{root}/shards/guard"


def test_a_log_that_decides_nothing_changes_nothing(root: Path) -> None:
    def recipe(score: str | None, queries: int) -> str:
        config = config_of(root, validation={"score": score})
        log = config.evaluate.log.model_copy(update={"queries": queries})
        judged = config.evaluate.model_copy(update={"log": log})
        return targets.encoder(config.model_copy(update={"evaluate": judged})).recipe

    assert recipe("r@5", 10) == recipe("r@5", 20)
    assert recipe(None, 10) != recipe(None, 20)
