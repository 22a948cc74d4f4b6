"""How titles are prepared for the checkpoint that training starts from."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.config.schema import EncoderConfig
from raysys.encoder.bundle import publish_bundle
from raysys.encoder.start import text_preprocessing
from raysys.encoder.text import TextPreprocessing
from raysys.encoder.tiny import build_tiny
from tests.factories import TINY, tiny_checkpoint

TITLES = ["red cup", "blue hat"]


def lowers(start: str, lower_case: bool | None = None) -> bool:
    return text_preprocessing(EncoderConfig(start=start, lower_case=lower_case)).lower_case


@pytest.mark.parametrize("lower_case", [True, False])
def test_what_is_said_is_done(tmp_path: Path, lower_case: bool) -> None:
    assert lowers("tiny", lower_case) is lower_case
    assert lowers(tiny_checkpoint(tmp_path, TITLES), lower_case) is lower_case


def test_siglip_wants_titles_in_lower_case(tmp_path: Path) -> None:
    # Its tokenizer says do_lower_case=False, as those do that leave it to the caller.
    assert lowers("tiny")
    assert lowers(tiny_checkpoint(tmp_path, TITLES))


def test_a_bundle_that_was_trained_with_case_keeps_it(tmp_path: Path) -> None:
    text = TextPreprocessing(TINY.max_length, lower_case=False)
    spec = ArtifactSpec(str(tmp_path), EncoderBundleManifest, {}, {})
    publish_bundle(spec, lambda folder: build_tiny(folder, TITLES, TINY, seed=7), text=text)
    assert not lowers(str(tmp_path))
    assert lowers(str(tmp_path), lower_case=True)
