"""EncoderBundles: checkpoints that plain `transformers` loads, with a space id in the manifest.

The space id is a hash of everything that affects a vector: weights, configuration, image processor,
tokenizer, title preprocessing, projection and normalisation. A change to any of them gives another space.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
import torch
import transformers
from torch import Tensor

from raysys import artifacts, storage
from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.artifacts.intact import damage_named
from raysys.artifacts.served import version_of
from raysys.encoder import siglip
from raysys.encoder.interpolation import Interpolation, interpolate
from raysys.encoder.preprocess import ImagePreprocessing
from raysys.encoder.projection import load_projection
from raysys.encoder.text import TextPreprocessing

_WEIGHTS = "model.safetensors"
_NORMALISATION = "l2"
# These keys describe how a checkpoint was saved and do not affect its vectors.
_IGNORED_CONFIG_KEYS = ("_name_or_path", "transformers_version", "dtype", "torch_dtype")


def publish_bundle(
    spec: ArtifactSpec,
    write_files: Callable[[Path], None],
    *,
    text: TextPreprocessing,
    parent_space_id: str | None = None,
    training_run: str | None = None,
    num_items: int = 0,
    seconds: float | None = None,
    interpolation: Interpolation | None = None,
) -> EncoderBundleManifest:
    """Publish an EncoderBundle; `write_files` writes the checkpoint's files into an empty folder.

    `seconds` is how long training took, if it did not happen in `write_files`.
    """
    started = time.monotonic()
    kept = artifacts.versions_to_keep(spec.uri, EncoderBundleManifest)
    artifacts.begin(spec, kept)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(folder)
        space_id, dimensions = space_id_of(folder, text), _dimensions_of(folder)
        storage.upload_folder(folder, spec.uri)
    files = artifacts.describe_files(spec.uri)
    duration = time.monotonic() - started if seconds is None else seconds
    manifest = EncoderBundleManifest(
        **artifacts.common_fields(spec, files, num_items, duration),
        space_id=space_id,
        dimensions=dimensions,
        parent_space_id=parent_space_id,
        training_run=training_run,
        text=dataclasses.asdict(text),
        interpolation=interpolation.model_dump(mode="json") if interpolation else None,
    )
    _copy_version(spec.uri, manifest)
    artifacts.publish(spec.uri, manifest)
    version = version_of(manifest)
    artifacts.delete_other_versions(spec.uri, EncoderBundleManifest, keep={*kept, version})
    return manifest


def _copy_version(uri: str, manifest: EncoderBundleManifest) -> None:
    """Copy the bundle to the folder at which it can still be opened after the next publication at `uri`."""
    version = storage.join(uri, version_of(manifest))
    for name in manifest.files:
        storage.copy_file(storage.join(uri, name), storage.join(version, name))
    artifacts.publish(version, manifest)


def publish_trained_bundle(
    spec: ArtifactSpec,
    start_uri: str,
    weights: Mapping[str, Tensor],
    *,
    training_run: str,
    num_items: int,
    seconds: float,
) -> EncoderBundleManifest:
    """Publish the files of the start with trained weights; `training_run` is where these come from."""
    start = artifacts.open_artifact(start_uri, EncoderBundleManifest)

    def write_files(folder: Path) -> None:
        with storage.readable_folder(start_uri) as source:
            copy_checkpoint(source, folder)
        _replace_weights(folder, weights)

    return publish_bundle(
        spec,
        write_files,
        text=TextPreprocessing(**start.text),
        parent_space_id=start.space_id,
        training_run=training_run,
        num_items=num_items,
        seconds=seconds,
    )


def publish_interpolated_bundle(
    spec: ArtifactSpec, start_uri: str, fine_tuned_uri: str, interpolation: Interpolation
) -> EncoderBundleManifest:
    """Publish the chosen point between two bundles; its manifest holds all points."""
    started = time.monotonic()
    fine_tuned = artifacts.open_artifact(fine_tuned_uri, EncoderBundleManifest)

    def write_files(folder: Path) -> None:
        with storage.readable_folder(fine_tuned_uri) as source:
            copy_checkpoint(source, folder)
        if interpolation.alpha < 1.0:
            with storage.readable_folder(start_uri) as source:
                start = siglip.load_model(source).state_dict()
            weights = siglip.load_model(folder).state_dict()
            _replace_weights(folder, interpolate(start, weights, interpolation.alpha))

    return publish_bundle(
        spec,
        write_files,
        text=TextPreprocessing(**fine_tuned.text),
        parent_space_id=fine_tuned.space_id,
        training_run=fine_tuned.training_run,
        num_items=fine_tuned.num_items,
        seconds=time.monotonic() - started,
        interpolation=interpolation,
    )


def _replace_weights(folder: Path, weights: Mapping[str, Tensor]) -> None:
    model = siglip.load_model(folder)
    model.load_state_dict(weights)
    model.save_pretrained(folder)


def open_bundle(
    uri: str, *, device: str = "cpu", precision: str = "fp32", compiled: bool = False
) -> siglip.SiglipEncoder:
    """The encoder of a bundle on a device.

    Raises: SpaceMismatch if its files do not match its space id, DamagedData if one cannot be read.
    """
    manifest = artifacts.open_artifact(uri, EncoderBundleManifest)
    text = TextPreprocessing(**manifest.text)
    with storage.readable_folder(uri) as folder, damage_named(uri, EncoderBundleManifest):
        artifacts.require_same_space(
            f"{uri}: manifest", manifest.space_id, "its files", space_id_of(folder, text)
        )
        return siglip.SiglipEncoder(
            folder,
            space_id=manifest.space_id,
            text=text,
            projection=load_projection(folder),
            device=device,
            precision=precision,
            compiled=compiled,
        )


def preprocessing_of(uri: str) -> tuple[ImagePreprocessing, TextPreprocessing]:
    """How photos and titles are prepared for the encoder of a bundle, read without loading its weights."""
    text = TextPreprocessing(**artifacts.open_artifact(uri, EncoderBundleManifest).text)
    with storage.readable_folder(uri) as folder, damage_named(uri, EncoderBundleManifest):
        return siglip.image_preprocessing_of(folder), text


def copy_checkpoint(source: Path, folder: Path) -> None:
    """Copy the files of a bundle except its manifest to `folder`."""
    for path in source.iterdir():
        if path.is_file() and path.name != artifacts.MANIFEST:
            shutil.copyfile(path, folder / path.name)


def space_id_of(folder: Path, text: TextPreprocessing) -> str:
    """The hash of everything that affects a vector, as 64 hex digits."""
    digest = hashlib.sha256()
    _hash_tensors(digest, folder / _WEIGHTS)
    projection = load_projection(folder)
    if projection is not None:
        digest.update(projection.mean.tobytes() + projection.components.tobytes())
    description = {
        "model": _model_config(folder),
        "image": dataclasses.asdict(siglip.image_preprocessing_of(folder)),
        "text": dataclasses.asdict(text),
        "tokenizer": {
            path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in _tokenizer_files(folder)
        },
        "normalisation": _NORMALISATION,
    }
    digest.update(json.dumps(description, sort_keys=True).encode())
    return digest.hexdigest()


def _hash_tensors(digest: Any, path: Path) -> None:
    with safetensors.safe_open(path, framework="pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name).contiguous()
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())


def _model_config(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "config.json").read_text())
    return _without_ignored(content)


def _without_ignored(content: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _without_ignored(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if key not in _IGNORED_CONFIG_KEYS
    }


def _tokenizer_files(folder: Path) -> list[Path]:
    names = ("spiece.model", "tokenizer.json", "tokenizer.model", "tokenizer_config.json")
    return [folder / name for name in names if (folder / name).exists()]


def _dimensions_of(folder: Path) -> int:
    projection = load_projection(folder)
    # config.json omits values that equal the default, so the configuration class must read it.
    return (
        projection.dimensions
        if projection
        else siglip.dimensions_of(transformers.AutoConfig.from_pretrained(folder))
    )
