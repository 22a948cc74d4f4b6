"""One address for bundles and for image models of Hugging Face."""

from pathlib import Path

import numpy as np
import pytest

from raysys import artifacts
from raysys.artifacts import EncoderBundleManifest
from raysys.encoder.image_encoder import describe_image_encoder, open_image_encoder
from raysys.encoder.siglip import SiglipEncoder
from raysys.encoder.vision import VisionEncoder
from raysys.errors import InputError, MissingError
from tests.embedding_sets import publish_set
from tests.factories import TINY, photo, save_vision_model, tiny_bundle


def test_bundle_is_described_by_its_manifest(tmp_path: Path) -> None:
    uri = tiny_bundle(tmp_path / "bundle", ["red cup", "blue cup"])
    info = describe_image_encoder(uri)
    manifest = artifacts.open_artifact(uri, EncoderBundleManifest)
    assert (info.space_id, info.dimensions) == (manifest.space_id, TINY.hidden_size)
    assert (info.image.shape, info.image.dtype) == ((TINY.image_size_px, TINY.image_size_px, 3), "uint8")
    encoder = open_image_encoder(uri)
    assert isinstance(encoder, SiglipEncoder)
    assert encoder.image == info.image


def test_image_model_is_described_by_what_it_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_vision_model(tmp_path / "vit")
    monkeypatch.chdir(tmp_path)
    info = describe_image_encoder("vit")
    assert info.source == str(tmp_path / "vit")  # for processes in other folders
    assert (info.dimensions, info.image.shape, info.image.dtype) == (16, (3, 16, 16), "float32")
    encoder = open_image_encoder(info.source)
    assert isinstance(encoder, VisionEncoder)
    assert encoder.space_id == info.space_id
    prepared = info.image(photo())
    assert (prepared.shape, prepared.dtype.name) == (info.image.shape, info.image.dtype)
    vectors = encoder.embed_pixels(prepared[None])
    np.testing.assert_allclose(vectors, encoder.embed_photos([photo()]), atol=1e-6)


def test_address_without_an_encoder_is_one_line(tmp_path: Path) -> None:
    publish_set(str(tmp_path / "set"), {"train-a-0.parquet": [("a", b"A")]}, np.eye(1, dtype=np.float32))
    with pytest.raises(InputError, match="set: a EncoderBundle is needed, found a EmbeddingSet"):
        describe_image_encoder(str(tmp_path / "set"))
    with pytest.raises(MissingError, match="nothing: neither a folder here"):
        describe_image_encoder(str(tmp_path / "nothing"))
