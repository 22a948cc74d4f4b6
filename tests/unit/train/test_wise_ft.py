"""Points between two bundles are measured, and the chosen one is what is delivered."""

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
from raysys.train.validation.retention import RetentionCheck
from raysys.train.validation.validation import Validation
from raysys.train.wise_ft import Sweep, publish_best_point
from tests.factories import tiny_bundle

TITLES = ["red cup", "blue hat", "green sock", "red hat"]


@dataclass(frozen=True)
class Scores(Validation):
    """A validation that looks at the weights alone: best where the bias is `wanted`."""

    wanted: float = 0.0

    def measure(self, model: torch.nn.Module) -> dict[str, float]:
        score = -abs(model.get_parameter("logit_bias").item() - self.wanted)
        return {"r@5": score, "score": score}


class Keeps(RetentionCheck):
    """A guard that falls from 1 at a bias of 0 to 0 at a bias of -4."""

    def measure(self, model: torch.nn.Module) -> float:
        return 1.0 + model.get_parameter("logit_bias").item() / 4.0


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """A start with a bias of 0, and what was fine-tuned from it, with one of -4."""
    root = tmp_path_factory.mktemp("bundles")
    start, tuned = tiny_bundle(root / "start", TITLES, bias=0.0), tiny_bundle(root / "tuned", TITLES, seed=8)
    return start, tuned


def sweep_to(bundles: tuple[str, str], wanted: float) -> Sweep:
    validation = Scores("", [], [], None, "r@5", 0, "cpu", wanted)
    return Sweep(*bundles, validation, Keeps("", "drawn", 1))


def delivered(
    bundles: tuple[str, str], folder: Path, wanted: float, max_drop: float
) -> EncoderBundleManifest:
    section = RobustConfig(interpolation_steps=5, max_guard_drop=max_drop)
    return publish_best_point(
        ArtifactSpec(str(folder), EncoderBundleManifest, {}, {}), sweep_to(bundles, wanted), section, map
    )


def test_the_best_point_is_delivered_with_the_curve_beside_it(
    bundles: tuple[str, str], tmp_path: Path
) -> None:
    manifest = delivered(bundles, tmp_path, wanted=-3.0, max_drop=1.0)
    found = read_interpolation(str(tmp_path))
    assert [(point.a, point.guard) for point in found.points] == [
        (0.0, 1.0), (0.25, 0.75), (0.5, 0.5), (0.75, 0.25), (1.0, 0.0)
    ]  # fmt: skip
    assert (found.chosen, found.floor) == (0.75, 0.0)
    start, tuned, model = (load_model(uri).state_dict() for uri in (*bundles, tmp_path))
    for name, weight in model.items():
        torch.testing.assert_close(weight, 0.25 * start[name] + 0.75 * tuned[name])
    parent = open_artifact(bundles[1], EncoderBundleManifest)
    assert manifest.parent_space_id == parent.space_id != manifest.space_id
    assert open_bundle(str(tmp_path)).space_id == manifest.space_id
    assert manifest.interpolation == found.model_dump()


def test_what_forgets_too_much_is_not_delivered(bundles: tuple[str, str], tmp_path: Path) -> None:
    delivered(bundles, tmp_path, wanted=-3.0, max_drop=0.5)
    assert read_interpolation(str(tmp_path)).chosen == 0.5


def test_the_fine_tuned_weights_themselves_are_delivered_exactly(
    bundles: tuple[str, str], tmp_path: Path
) -> None:
    manifest = delivered(bundles, tmp_path, wanted=-4.0, max_drop=1.0)
    assert read_interpolation(str(tmp_path)).chosen == 1.0
    assert (tmp_path / "model.safetensors").read_bytes() == Path(bundles[1], "model.safetensors").read_bytes()
    assert manifest.space_id == manifest.parent_space_id  # the same weights are the same space
    # and the same bundle: a curve that came out otherwise makes nobody embed again
    assert manifest.fingerprint == open_artifact(bundles[1], EncoderBundleManifest).fingerprint
