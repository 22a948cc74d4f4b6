"""Bundles and the space id: the id changes if and only if the vectors change."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.encoder.bundle import copy_checkpoint, open_bundle, preprocessing_of, publish_bundle, space_id_of
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.projection import Projection
from raysys.encoder.siglip import SiglipEncoder
from raysys.encoder.text import TextPreprocessing
from raysys.errors import DamagedData, InputError, SpaceMismatch
from tests.factories import tiny_checkpoint

TEXT = TextPreprocessing(max_length=6)
PIXELS = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    tiny_checkpoint(path, ["red shoes", "blue bag", "green hat", "old chair"])
    return path


@pytest.fixture
def folder(checkpoint: Path, tmp_path: Path) -> Path:
    """A copy of the checkpoint that a test may edit."""
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


@pytest.fixture
def spec(tmp_path: Path) -> ArtifactSpec:
    return ArtifactSpec(str(tmp_path / "bundle"), EncoderBundleManifest, {"start": "tiny"}, {})


def publish(
    spec: ArtifactSpec, checkpoint: Path, projection: Projection | None = None
) -> EncoderBundleManifest:
    def write_files(folder: Path) -> None:
        copy_checkpoint(checkpoint, folder)
        if projection:
            projection.save(folder)

    return publish_bundle(spec, write_files, text=TEXT)


def random_projection(dimensions: int) -> Projection:
    rng = np.random.default_rng(1)
    components = rng.normal(size=(dimensions, 16)).astype(np.float32)
    return Projection(rng.normal(size=16).astype(np.float32), components)


def edit_json(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def edit_weights(folder: Path) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    tensors["logit_bias"] += 1e-6
    safetensors.torch.save_file(tensors, folder / "model.safetensors")


def edit_tokenizer(folder: Path) -> None:
    with (folder / "spiece.model").open("ab") as stream:
        stream.write(b"\0")


def edit_tokenizer_settings(folder: Path) -> None:
    # Titles are padded without a mask, so the padding piece affects their vectors.
    edit_json(folder / "tokenizer_config.json", lambda content: content.update(pad_token="<unk>"))


def edit_image_size(folder: Path) -> None:
    size = {"height": 24, "width": 24}
    edit_json(folder / "processor_config.json", lambda content: content["image_processor"].update(size=size))


def edit_image_mean(folder: Path) -> None:
    mean = [0.5, 0.5, 0.4]
    edit_json(
        folder / "processor_config.json", lambda content: content["image_processor"].update(image_mean=mean)
    )


def edit_activation(folder: Path) -> None:
    edit_json(folder / "config.json", lambda content: content["vision_config"].update(hidden_act="relu"))


def add_projection(folder: Path) -> None:
    random_projection(4).save(folder)


@pytest.mark.parametrize(
    "edit",
    [
        edit_weights,
        edit_tokenizer,
        edit_tokenizer_settings,
        edit_image_size,
        edit_image_mean,
        edit_activation,
        add_projection,
    ],
)
def test_space_id_changes_with_everything_that_affects_a_vector(
    folder: Path, edit: Callable[[Path], None]
) -> None:
    before = space_id_of(folder, TEXT)
    edit(folder)
    assert space_id_of(folder, TEXT) != before


def test_space_id_changes_with_title_preprocessing(folder: Path) -> None:
    texts = [TEXT, TextPreprocessing(6, lower_case=False), TextPreprocessing(5)]
    assert len({space_id_of(folder, text) for text in texts}) == 3


def test_space_id_changes_with_the_values_of_the_projection(folder: Path) -> None:
    random_projection(4).save(folder)
    before = space_id_of(folder, TEXT)
    Projection(random_projection(4).mean, -random_projection(4).components).save(folder)
    assert space_id_of(folder, TEXT) != before


@pytest.mark.parametrize(
    "values", [{"transformers_version": "9"}, {"_name_or_path": "/elsewhere"}, {"dtype": "bfloat16"}]
)
def test_space_id_ignores_how_a_checkpoint_was_saved(folder: Path, values: dict[str, str]) -> None:
    before = space_id_of(folder, TEXT)
    edit_json(folder / "config.json", lambda content: content.update(values))
    (folder / "README.md").write_text("a model")
    assert space_id_of(folder, TEXT) == before


def test_space_id_ignores_dtype_in_tower_configs(folder: Path) -> None:
    # transformers adds `dtype` there when it saves a loaded checkpoint again.
    before = space_id_of(folder, TEXT)
    edit_json(folder / "config.json", lambda content: content["vision_config"].update(dtype="float32"))
    assert space_id_of(folder, TEXT) == before


def test_space_id_is_64_hex_digits(checkpoint: Path) -> None:
    assert len(bytes.fromhex(space_id_of(checkpoint, TEXT))) == 32


def test_opened_bundle_returns_the_vectors_of_the_checkpoint(spec: ArtifactSpec, checkpoint: Path) -> None:
    manifest = publish(spec, checkpoint)
    encoder = open_bundle(spec.uri)
    plain = SiglipEncoder(checkpoint, space_id="", text=TEXT)
    assert encoder.space_id == manifest.space_id == space_id_of(checkpoint, TEXT)
    assert encoder.dimensions == manifest.dimensions == 16
    assert (encoder.embed_pixels(PIXELS) == plain.embed_pixels(PIXELS)).all()


def test_opened_bundle_applies_its_projection(spec: ArtifactSpec, checkpoint: Path) -> None:
    manifest = publish(spec, checkpoint, random_projection(4))
    encoder = open_bundle(spec.uri)
    expected = random_projection(4).apply(
        SiglipEncoder(checkpoint, space_id="", text=TEXT).embed_pixels(PIXELS)
    )
    assert encoder.dimensions == manifest.dimensions == 4
    np.testing.assert_allclose(encoder.embed_pixels(PIXELS), expected, atol=1e-6)


def test_preprocessing_is_read_from_a_bundle(spec: ArtifactSpec, checkpoint: Path) -> None:
    publish(spec, checkpoint)
    assert preprocessing_of(spec.uri) == (ImagePreprocessing(size_px=16), TEXT)


def test_bundle_with_a_changed_weight_does_not_open(spec: ArtifactSpec, checkpoint: Path) -> None:
    manifest = publish(spec, checkpoint)
    weights = Path(spec.uri, "model.safetensors")
    tensors = safetensors.torch.load_file(weights)
    tensors["logit_bias"] += 1.0
    safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(SpaceMismatch) as caught:
        open_bundle(spec.uri)
    changed = space_id_of(Path(spec.uri), TEXT)
    assert str(caught.value).startswith(f"{spec.uri}: manifest ")
    assert manifest.space_id[:12] in str(caught.value)
    assert changed[:12] in str(caught.value)


def test_bundle_with_a_missing_file_does_not_open(spec: ArtifactSpec, checkpoint: Path) -> None:
    publish(spec, checkpoint)
    Path(spec.uri, "spiece.model").unlink()
    with pytest.raises(DamagedData, match=r"spiece\.model.*`raysys train` makes it again$"):
        open_bundle(spec.uri)


def test_copy_contains_every_file_except_the_manifest(
    spec: ArtifactSpec, checkpoint: Path, tmp_path: Path
) -> None:
    publish(spec, checkpoint)
    (tmp_path / "copy").mkdir()
    copy_checkpoint(Path(spec.uri), tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == sorted(
        path.name for path in checkpoint.iterdir()
    )


def test_bundle_is_not_published_if_writing_its_files_fails(spec: ArtifactSpec) -> None:
    def write_files(folder: Path) -> None:
        raise InputError("no titles")

    with pytest.raises(InputError, match="no titles"):
        publish_bundle(spec, write_files, text=TEXT)
    assert not Path(spec.uri, "manifest.json").exists()


def test_space_id_changes_with_the_dtype_of_the_weights(folder: Path) -> None:
    before = space_id_of(folder, TEXT)
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    rounded = {name: tensor.to(torch.bfloat16) for name, tensor in tensors.items()}
    safetensors.torch.save_file(rounded, folder / "model.safetensors")
    assert space_id_of(folder, TEXT) != before
