"""SigLIP as an encoder against plain transformers, and errors for checkpoints that do not load."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file

from raysys.config.schema import EncoderConfig, ScratchConfig
from raysys.encoder import siglip
from raysys.encoder.preprocess import to_pixels
from raysys.encoder.projection import Projection
from raysys.encoder.siglip import SiglipEncoder
from raysys.encoder.start import write_start
from raysys.encoder.text import TextPreprocessing
from raysys.errors import InputError, MissingError
from tests.factories import tiny_checkpoint

SIZE = ScratchConfig(
    image_size_px=32,
    patch_size_px=8,
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    text_num_layers=1,
    max_length=8,
)
TITLES = ["red shoes", "blue bag", "green hat with a ribbon", "old wooden chair", "white dress"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    tiny_checkpoint(path, TITLES, SIZE)
    return path


@pytest.fixture(scope="module")
def encoder(folder: Path) -> SiglipEncoder:
    return make_encoder(folder)


def embed(encoder: SiglipEncoder, photos: list[Image.Image], batch_size: int = 64) -> np.ndarray:
    return encoder.embed_pixels(np.stack([to_pixels(photo, encoder.image) for photo in photos]), batch_size)


def make_encoder(folder: Path, **options: Any) -> SiglipEncoder:
    return SiglipEncoder(folder, space_id="s", text=TextPreprocessing(max_length=8), **options)


def test_text_tower_receives_no_attention_mask() -> None:
    received: dict[str, Any] = {}

    class Model:
        def get_text_features(self, **inputs: Any) -> torch.Tensor:
            received.update(inputs)
            return torch.zeros(1, 4)

    tokens = torch.tensor([[3, 1, 1]])
    siglip.text_features(Model(), tokens)
    assert received == {"input_ids": tokens}  # SigLIP attends to its padding


def images(num: int) -> list[Image.Image]:
    noise = np.random.default_rng(0).integers(0, 256, (num, 40, 25, 3), dtype=np.uint8)
    return [Image.fromarray(pixels) for pixels in noise]


def unit(features: torch.Tensor) -> np.ndarray:
    return torch.nn.functional.normalize(features, dim=-1).numpy()


def test_photo_vectors_equal_those_of_plain_transformers(folder: Path, encoder: SiglipEncoder) -> None:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with torch.inference_mode():
        features = model.get_image_features(**processor(images=images(5), return_tensors="pt"))
    np.testing.assert_allclose(embed(encoder, images(5)), unit(features.pooler_output), atol=1e-5)


def test_title_vectors_equal_those_of_plain_transformers(folder: Path, encoder: SiglipEncoder) -> None:
    model = transformers.AutoModel.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer(TITLES, padding="max_length", max_length=8, truncation=True, return_tensors="pt")
    with torch.inference_mode():
        features = model.get_text_features(input_ids=tokens["input_ids"])
    np.testing.assert_allclose(encoder.embed_titles(TITLES), unit(features.pooler_output), atol=1e-5)


def test_vectors_have_length_one(encoder: SiglipEncoder) -> None:
    for vectors in (embed(encoder, images(5)), encoder.embed_titles(TITLES)):
        assert vectors.shape == (5, 32)
        assert vectors.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-6)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_vectors_do_not_depend_on_the_batch_size(encoder: SiglipEncoder, batch_size: int) -> None:
    photos, titles = embed(encoder, images(5)), encoder.embed_titles(TITLES)
    np.testing.assert_allclose(embed(encoder, images(5), batch_size), photos, atol=1e-5)
    np.testing.assert_allclose(encoder.embed_titles(TITLES, batch_size), titles, atol=1e-5)


def test_no_pixels_give_no_vectors(encoder: SiglipEncoder) -> None:
    assert encoder.embed_pixels(np.empty((0, 32, 32, 3), np.uint8)).shape == (0, 32)


def test_title_is_prepared_before_it_is_embedded(encoder: SiglipEncoder) -> None:
    one, other = encoder.embed_titles(["ＲＥＤ\u3000  Shoes", "red shoes"])
    assert one.tolist() == other.tolist()


def test_projection_is_the_last_step(folder: Path, encoder: SiglipEncoder) -> None:
    rng = np.random.default_rng(0)
    projection = Projection(
        rng.normal(size=32).astype(np.float32), rng.normal(size=(4, 32)).astype(np.float32)
    )
    projected = make_encoder(folder, projection=projection)
    assert (encoder.dimensions, projected.dimensions) == (32, 4)
    expected = projection.apply(embed(encoder, images(3)))
    np.testing.assert_allclose(embed(projected, images(3)), expected, atol=1e-6)


def test_bf16_vectors_stay_within_the_parity_limit(folder: Path, encoder: SiglipEncoder) -> None:
    vectors = embed(make_encoder(folder, precision="bf16"), images(5))
    cosines = (vectors * embed(encoder, images(5))).sum(axis=1)
    assert vectors.dtype == np.float32
    assert (1 - cosines).max() < 1e-3


def test_preprocessing_is_read_from_the_checkpoint(folder: Path) -> None:
    image = siglip.image_preprocessing_of(folder)
    assert (image.size_px, image.mean, image.std) == (32, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert image.resample == Image.Resampling.BICUBIC


def test_input_size_must_be_square(tmp_path: Path) -> None:
    transformers.SiglipImageProcessorPil(size={"height": 32, "width": 48}).save_pretrained(tmp_path)
    with pytest.raises(InputError) as caught:
        siglip.image_preprocessing_of(tmp_path)
    assert str(caught.value) == f"{tmp_path}: a square input size is required, got 32 x 48"


@pytest.mark.parametrize(
    "config", [transformers.ViTConfig, transformers.BertConfig, transformers.SiglipVisionConfig]
)
def test_other_architecture_is_an_error(tmp_path: Path, config: Any) -> None:
    config().save_pretrained(tmp_path)
    with pytest.raises(InputError) as caught:
        siglip.load_model(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: a SigLIP checkpoint with two towers is required, got model_type {config.model_type!r}"
    )


@pytest.mark.parametrize("content", [None, "{", json.dumps({"model_type": "no such model"})])
def test_unreadable_configuration_is_an_error_of_one_line(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError) as caught:
        siglip.load_model(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: cannot load a checkpoint (")
    assert str(caught.value).endswith("); give a hub id, a folder, `tiny` or `scratch`")
    assert "\n" not in str(caught.value)


def test_tokenizer_with_more_pieces_than_embeddings_is_an_error(folder: Path, tmp_path: Path) -> None:
    mixed = tmp_path / "mixed"
    shutil.copytree(folder, mixed)
    content = json.loads((mixed / "config.json").read_text())
    pieces = content["text_config"]["vocab_size"]
    content["text_config"]["vocab_size"] = pieces - 3
    (mixed / "config.json").write_text(json.dumps(content))
    weights = load_file(mixed / "model.safetensors")
    table = "text_model.embeddings.token_embedding.weight"
    save_file({**weights, table: weights[table][:-3].clone()}, mixed / "model.safetensors")
    with pytest.raises(InputError) as caught:
        write_start(tmp_path, EncoderConfig(start=str(mixed)), [])
    assert str(caught.value) == (
        f"{mixed}: the tokenizer (tokenizer.json, spiece.model) has ids up to {pieces - 1} (pieces), "
        f"the text tower (config.json: text_config.vocab_size) has embeddings for 0 to {pieces - 4}; "
        "use the tokenizer that the checkpoint was trained with"
    )


def test_matching_tokenizer_is_copied(folder: Path, tmp_path: Path) -> None:
    write_start(tmp_path, EncoderConfig(start=str(folder)), [])
    assert (tmp_path / "model.safetensors").exists()


def test_missing_weights_are_an_error_of_one_line(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    with pytest.raises(InputError) as caught:
        siglip.load_model(tmp_path)
    assert str(caught.value).startswith(f"{tmp_path}: cannot load a checkpoint (")


def test_unreachable_hub_id_is_an_error_of_one_line() -> None:
    with pytest.raises(MissingError) as caught:
        siglip.load_model("someone/siglip-of-nowhere")
    assert str(caught.value).startswith("someone/siglip-of-nowhere: weights not reachable here (")
