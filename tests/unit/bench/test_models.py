"""The model that benchmarks use on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.bench import models
from raysys.config.schema import ScratchConfig
from raysys.encoder import siglip
from tests.factories import tiny_checkpoint

SMALL_PHOTOS = ScratchConfig(image_size_px=16, patch_size_px=8, hidden_size=32, num_layers=1, num_heads=2)


def test_photos_have_the_size_of_the_model_on_a_gpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever that of the configuration is."""
    config = models.siglip_b16_config()
    config.vision_config.num_hidden_layers = config.text_config.num_hidden_layers = 1
    config.text_config.vocab_size = 100
    monkeypatch.setattr(models, "siglip_b16_config", lambda: config)
    tiny_checkpoint(tmp_path, ["red dress", "blue cup", "green shoe"] * 3, SMALL_PHOTOS)
    assert siglip.image_preprocessing_of(tmp_path).size_px == 16
    models.write_siglip_b16(tmp_path)
    assert siglip.image_preprocessing_of(tmp_path).size_px == 256
    assert siglip.load_config(tmp_path).vision_config.image_size == 256
