"""The catalogue and its photos as the stage sees them, over the present reader of tables."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from raysys import storage
from raysys.config.schema import PackConfig, TableCatalog
from raysys.encoder.preprocess import decode_image
from raysys.records import Attributes
from raysys.shards import catalog

_JPEG_QUALITY = 95


@dataclass(frozen=True)
class CatalogRow:
    """A row of a catalogue, before anything about it was judged."""

    item_id: str
    title: str
    image: str | bytes
    attributes: Attributes
    split: str | None
    source: str
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class CatalogSource:
    """A file of a catalogue."""

    path: str

    def rows(self, section: TableCatalog, split_column: str | None) -> Iterator[CatalogRow]:
        """Its rows, in order."""
        images = section.images or section.path.rpartition("/")[0] or "."
        for line, record in enumerate(catalog._read_csv(section, split_column), start=2):
            row = catalog._to_row(record, section, images, split_column, f"{self.path}:{line}")
            yield CatalogRow(row.item_id, row.title, row.image_uri, row.attributes, row.split, row.source)


@dataclass(frozen=True)
class Photo:
    """A photo as it is stored."""

    data: bytes
    width: int
    height: int
    perceptual_hash: int | None
    is_original: bool


def sources(section: TableCatalog) -> list[CatalogSource]:
    """The files of a catalogue, in order."""
    return [CatalogSource(section.path)]


def read_photo(image: str | bytes, section: PackConfig) -> Photo:
    """The photo as JPEG: the original bytes if they are an upright RGB JPEG, else encoded anew.

    Raises: MissingError, UnreadableImage.
    """
    data = storage.read_bytes(image) if isinstance(image, str) else image
    picture = decode_image(data, max_pixels=int(section.max_megapixels * 1e6))
    is_original = _is_plain_jpeg(data)
    if not is_original:
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=_JPEG_QUALITY)
        data = encoded.getvalue()
    return Photo(data, picture.width, picture.height, _perceptual_hash(picture), is_original)


def clean_title(title: str) -> str:
    """The title with every run of white space as one blank."""
    return " ".join(title.split())


def _perceptual_hash(picture: Image.Image) -> int | None:
    grey = np.asarray(picture.convert("L").resize((9, 8)), dtype=np.int16)
    bits = grey[:, 1:] > grey[:, :-1] + 1
    return int.from_bytes(np.packbits(bits).tobytes(), "big") if bits.any() else None


def _is_plain_jpeg(data: bytes) -> bool:
    with Image.open(io.BytesIO(data)) as picture:
        return picture.format == "JPEG" and picture.mode == "RGB" and not picture.getexif()
