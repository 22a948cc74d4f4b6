"""Title preprocessing for the start checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.config.schema import EncoderConfig
from raysys.encoder.bundle import publish_bundle
from raysys.encoder.scratch import build_scratch
from raysys.encoder.start import text_preprocessing
from raysys.encoder.text import TextPreprocessing
from tests.factories import TINY, tiny_checkpoint

TITLES = ["red cup", "blue hat"]


def lower_case_of(start: str, lower_case: bool | None = None) -> bool:
    return text_preprocessing(EncoderConfig(start=start, lower_case=lower_case)).lower_case


@pytest.mark.parametrize("lower_case", [True, False])
def test_configured_lower_case_is_used(tmp_path: Path, lower_case: bool) -> None:
    assert lower_case_of("tiny", lower_case) is lower_case
    assert lower_case_of(tiny_checkpoint(tmp_path, TITLES), lower_case) is lower_case


def test_titles_are_lower_cased_by_default(tmp_path: Path) -> None:
    # The tokenizer has do_lower_case=False, which does not show whether the caller must do it.
    assert lower_case_of("tiny")
    assert lower_case_of(tiny_checkpoint(tmp_path, TITLES))


def test_bundle_keeps_the_setting_it_was_trained_with(tmp_path: Path) -> None:
    text = TextPreprocessing(TINY.max_length, lower_case=False)
    spec = ArtifactSpec(str(tmp_path), EncoderBundleManifest, {}, {})
    publish_bundle(spec, lambda draft: build_scratch(draft, TITLES, TINY, seed=7), text=text)
    assert not lower_case_of(str(tmp_path))
    assert lower_case_of(str(tmp_path), lower_case=True)
