"""WiSE-FT publishes the best point that passes the retention check, and the pairs of that check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest, open_artifact
from raysys.config.schema import RobustConfig
from raysys.encoder.bundle import open_bundle
from raysys.encoder.interpolation import read_interpolation
from raysys.encoder.siglip import load_model
from raysys.errors import MissingError
from raysys.synth import generate_items
from raysys.train.validation.model_metrics import Validation
from raysys.train.wise_ft import (
    RetentionCheck,
    Sweep,
    make_retention_check,
    publish_best_point,
    retention_pairs,
)
from tests.factories import tiny_bundle
from tests.shards_by_hand import photo, write_shard_set

TITLES = ["red cup", "blue hat", "green sock", "red hat"]


@dataclass(frozen=True)
class BiasValidation(Validation):
    """A validation that scores the weights only: best where the bias of the loss is `best_bias`."""

    best_bias: float = 0.0

    def measure(self, model: torch.nn.Module) -> dict[str, float]:
        score = -abs(model.get_parameter("logit_bias").item() - self.best_bias)
        return {"r@5": score, "score": score}


class BiasRetention(RetentionCheck):
    """A retention that falls from 1 at a bias of 0 to 0 at a bias of -4."""

    def measure(self, model: torch.nn.Module) -> float:
        return 1.0 + model.get_parameter("logit_bias").item() / 4.0


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A start with a bias of 0, and a fine-tuned bundle with one of -4."""
    root = tmp_path_factory.mktemp("bundles")
    start = tiny_bundle(root / "start", TITLES, bias=0.0)
    return start, tiny_bundle(root / "tuned", TITLES, seed=8)


def publish(
    bundles: tuple[str, str], folder: Path, best_bias: float, max_drop: float
) -> EncoderBundleManifest:
    validation = BiasValidation("", [], [], None, "r@5", 0, "cpu", best_bias)
    sweep = Sweep(*bundles, validation, BiasRetention("", "drawn", 1))
    section = RobustConfig(interpolation_steps=5, max_retention_drop=max_drop)
    return publish_best_point(ArtifactSpec(str(folder), EncoderBundleManifest, {}, {}), sweep, section, map)


def test_best_point_is_published_with_all_points_in_its_manifest(
    bundles: tuple[str, str], tmp_path: Path
) -> None:
    manifest = publish(bundles, tmp_path, best_bias=-3.0, max_drop=1.0)
    interpolation = read_interpolation(str(tmp_path))
    assert [(point.alpha, point.retention) for point in interpolation.points] == [
        (0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (1.0, 0.0)
    ]  # fmt: skip
    assert (interpolation.alpha, interpolation.min_retention) == (0.75, 0.0)
    start, fine_tuned, model = (load_model(uri).state_dict() for uri in (*bundles, tmp_path))
    for name, weight in model.items():
        torch.testing.assert_close(weight, 0.25 * start[name] + 0.75 * fine_tuned[name])
    parent = open_artifact(bundles[1], EncoderBundleManifest)
    assert manifest.parent_space_id == parent.space_id != manifest.space_id
    assert open_bundle(str(tmp_path)).space_id == manifest.space_id
    assert manifest.interpolation == interpolation.model_dump()


def test_point_with_too_little_retention_is_not_published(bundles: tuple[str, str], tmp_path: Path) -> None:
    publish(bundles, tmp_path, best_bias=-3.0, max_drop=0.5)
    assert read_interpolation(str(tmp_path)).alpha == 0.5


def test_alpha_1_publishes_the_fine_tuned_weights_exactly(bundles: tuple[str, str], tmp_path: Path) -> None:
    manifest = publish(bundles, tmp_path, best_bias=-4.0, max_drop=1.0)
    assert read_interpolation(str(tmp_path)).alpha == 1.0
    assert (tmp_path / "model.safetensors").read_bytes() == Path(bundles[1], "model.safetensors").read_bytes()
    assert manifest.space_id == manifest.parent_space_id  # the same weights are the same space
    # The fingerprint is the same too: other metrics at the same alpha require no new embeddings.
    assert manifest.fingerprint == open_artifact(bundles[1], EncoderBundleManifest).fingerprint


def test_drawn_pairs_are_reproducible_and_differ_from_catalogues() -> None:
    photos, titles = retention_pairs("drawn", 6)
    retention_pairs.cache_clear()
    assert retention_pairs("drawn", 6) == (photos, titles)
    assert len(photos) == len(titles) == 6
    assert titles != [item.title for item in generate_items(6, seed=7)]


def test_shard_set_gives_its_first_pairs(tmp_path: Path) -> None:
    write_shard_set(tmp_path, ["first", "second"], ["third"])
    assert retention_pairs(str(tmp_path), 2) == ([photo()] * 2, ["a cup"] * 2)
    assert len(retention_pairs(str(tmp_path), 9)[1]) == 3


def test_missing_shard_set_is_reported_before_training(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no ShardSet here"):
        make_retention_check("", RobustConfig(retention_set=str(tmp_path / "nothing")))


def test_metric_is_recall_at_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = [f"red cup {n}" for n in range(10)]
    bundle = tiny_bundle(tmp_path, titles)
    monkeypatch.setattr(
        "raysys.train.wise_ft.retention_pairs",
        lambda source, num_items: ([photo()] * 10, titles),
    )
    # Equal photos retrieve the same five of ten titles.
    assert make_retention_check(bundle, RobustConfig()).measure(load_model(bundle)) == 0.5
