"""The media type of a photo comes from its bytes."""

from __future__ import annotations

import io

import pytest
from PIL import Image

from raysys.serve.media_types import media_type_of


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "AVIF"])
def test_photo_formats(kind: str) -> None:
    data = io.BytesIO()
    Image.new("RGB", (16, 16)).save(data, kind)
    assert media_type_of(data.getvalue()) == f"image/{kind.lower()}"


def test_other_bytes_have_no_type_that_a_browser_runs() -> None:
    assert media_type_of(b"<svg onload='alert(1)'/>") == "application/octet-stream"
    assert media_type_of(b"") == "application/octet-stream"
