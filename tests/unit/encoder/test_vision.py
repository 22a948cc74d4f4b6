"""Image models of Hugging Face as baseline encoders, against plain transformers."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers

from raysys.encoder.preprocess import decode_image
from raysys.encoder.siglip import SiglipEncoder
from raysys.encoder.text import TextPreprocessing
from raysys.encoder.vision import VisionEncoder
from raysys.errors import InputError, MissingError
from tests.factories import photo, save_vision_model, tiny_checkpoint


def test_vectors_equal_normalised_features_of_plain_transformers(tmp_path: Path) -> None:
    source, photos = (
        save_vision_model(tmp_path),
        [photo(colour, (20, 12)) for colour in ("red", "blue", "green")],
    )
    processor = transformers.AutoImageProcessor.from_pretrained(source, backend="pil")
    inputs = processor(images=[decode_image(data) for data in photos], return_tensors="pt")
    with torch.inference_mode():
        features = transformers.AutoModel.from_pretrained(source).eval()(**inputs).pooler_output
    expected = torch.nn.functional.normalize(features, dim=-1).numpy()
    np.testing.assert_allclose(VisionEncoder(source).embed_photos(photos, batch_size=2), expected, atol=1e-6)


def test_folder_without_weights_is_missing(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="weights not reachable here"):
        VisionEncoder(str(tmp_path))


def test_checkpoint_with_a_text_tower_gives_its_image_embeddings(tmp_path: Path) -> None:
    source = tiny_checkpoint(tmp_path / "siglip", ["red cup", "blue cup"])
    photos = [photo(colour, (20, 12)) for colour in ("red", "blue")]
    expected = SiglipEncoder(Path(source), space_id="", text=TextPreprocessing(8)).embed_photos(photos)
    np.testing.assert_allclose(VisionEncoder(source).embed_photos(photos), expected, atol=1e-6)


def test_space_id_depends_on_weights_and_processor_and_not_on_the_place(tmp_path: Path) -> None:
    ids = {
        name: VisionEncoder(save_vision_model(tmp_path / name, seed=seed, mean=mean)).space_id
        for name, seed, mean in (("a", 0, 0.5), ("copy", 0, 0.5), ("weights", 1, 0.5), ("mean", 0, 0.4))
    }
    assert ids["a"] == ids["copy"]
    assert len(set(ids.values())) == 3
    assert VisionEncoder(str(tmp_path / "a"), precision="bf16").space_id == ids["a"]


def test_processor_without_a_fixed_size_is_refused(tmp_path: Path) -> None:
    source = save_vision_model(tmp_path)
    transformers.ViTImageProcessorPil(do_resize=False).save_pretrained(source)
    with pytest.raises(
        InputError, match=r"its processor gives inputs of several sizes .*choose a model with"
    ):
        VisionEncoder(source)
