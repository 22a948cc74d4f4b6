"""Any encoder of photos by one address: an EncoderBundle, or an image model of Hugging Face."""

from __future__ import annotations

from dataclasses import dataclass

from raysys import artifacts, storage
from raysys.artifacts import EncoderBundleManifest
from raysys.encoder.bundle import open_bundle, preprocessing_of
from raysys.encoder.preprocess import PhotoPreparation
from raysys.encoder.siglip import SiglipEncoder
from raysys.encoder.vision import VisionEncoder


@dataclass(frozen=True)
class ImageEncoderInfo:
    """What the processes around an encoder need to know of it."""

    source: str
    """URI of an EncoderBundle, a hub id, or a local path."""
    space_id: str
    dimensions: int
    image: PhotoPreparation


def open_image_encoder(
    source: str, *, device: str = "cpu", precision: str = "fp32", compiled: bool = False
) -> SiglipEncoder | VisionEncoder:
    """The encoder on a device. Raises: as `open_bundle` and `VisionEncoder`."""
    open_encoder = open_bundle if is_bundle(source) else VisionEncoder
    return open_encoder(source, device=device, precision=precision, compiled=compiled)


def describe_image_encoder(source: str) -> ImageEncoderInfo:
    """Space id, dimensions and preparation of photos; the weights of a bundle are not loaded for that.

    Raises: as `open_image_encoder`.
    """
    if storage.is_folder(source):
        source = storage.absolute(source)  # a Ray worker has another current folder
    if is_bundle(source):
        manifest = artifacts.open_artifact(source, EncoderBundleManifest)
        return ImageEncoderInfo(source, manifest.space_id, manifest.dimensions, preprocessing_of(source)[0])
    encoder = VisionEncoder(source)
    return ImageEncoderInfo(source, encoder.space_id, encoder.dimensions, encoder.image)


def is_bundle(source: str) -> bool:
    """Whether an artifact is at this address, whatever its kind: a hub id or a checkpoint has no manifest."""
    return "://" in source or storage.exists(storage.join(source, artifacts.MANIFEST))
