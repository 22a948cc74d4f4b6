"""Image models of Hugging Face as baseline encoders, against plain transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from raysys.encoder.preprocess import decode_image
from raysys.encoder.vision import VisionEncoder
from raysys.errors import MissingError
from tests.factories import photo

SIZE = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


def save_model(folder: Path) -> str:
    """A random vision transformer for photos of 16 x 16 pixels."""
    torch.manual_seed(0)
    transformers.ViTModel(transformers.ViTConfig(**SIZE, image_size=16, patch_size=8)).save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": 16, "width": 16}).save_pretrained(folder)
    return str(folder)


def test_vectors_equal_normalised_features_of_plain_transformers(tmp_path: Path) -> None:
    source, photos = save_model(tmp_path), [photo(colour, (20, 12)) for colour in ("red", "blue", "green")]
    processor = transformers.AutoImageProcessor.from_pretrained(source, backend="pil")
    inputs = processor(images=[decode_image(data) for data in photos], return_tensors="pt")
    with torch.inference_mode():
        features = transformers.AutoModel.from_pretrained(source).eval()(**inputs).pooler_output
    expected = torch.nn.functional.normalize(features, dim=-1).numpy()
    np.testing.assert_allclose(VisionEncoder(source).embed_photos(photos, batch_size=2), expected, atol=1e-6)


def test_folder_without_weights_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="weights not reachable here"):
        VisionEncoder(str(tmp_path))
