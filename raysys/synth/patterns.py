"""The distribution of the second colour over the cloth: one function for each pattern.

A field contains the share of the second colour at each pixel, from 0 to 1. Periods are about a tenth of the
canvas: at 96 px, with the item half the width of the frame, a stripe still has about 5 px.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from raysys.synth.sketch import Material

Field = NDArray[np.float32]

_PADDING = 6


def pattern_field(pattern: str, materials: NDArray[np.uint8], rng: np.random.Generator) -> Field:
    """The share of the second colour at each pixel of a sketch, [size, size] in 0..1."""
    field = np.zeros(materials.shape, np.float32)
    if pattern == "plain":
        return field
    angle = rng.normal(0, 0.12)
    if pattern in ("stripes", "two-tone", "gradient") and rng.random() < 0.4:
        angle += np.pi / 2
    # Computed only on the cloth, a third of the canvas: this is the slowest step of a drawing.
    is_cloth = (materials >= Material.CLOTH) & (materials <= Material.LIGHT)
    centre = _deepest_point(is_cloth) if pattern in ("gradient", "two-tone", "logo") else (0.5, 0.5)
    across, along = _rotated_axes(len(is_cloth), centre, angle)
    field[is_cloth] = _FIELDS[pattern](across[is_cloth], along[is_cloth], rng)
    return field


def _rotated_axes(size_px: int, centre: tuple[float, float], angle: float) -> tuple[Field, Field]:
    """Distance of each pixel from the centre along the two axes of the pattern."""
    x, y = centre
    steps = (np.arange(size_px, dtype=np.float32) + np.float32(0.5)) / np.float32(size_px)
    u, v = (steps - np.float32(x))[None, :], (steps - np.float32(y))[:, None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return u * cos + v * sin, v * cos - u * sin


def _stripes(across: Field, along: Field, rng: np.random.Generator) -> Field:
    period = rng.uniform(0.11, 0.16)
    return _to_field(_sawtooth(along / period) < rng.uniform(0.36, 0.5))


def _checks(across: Field, along: Field, rng: np.random.Generator) -> Field:
    period = rng.uniform(0.14, 0.19)
    return (
        _to_field(_sawtooth(across / period) < 0.5) + _to_field(_sawtooth(along / period) < 0.5)
    ) * np.float32(0.5)


def _dots(across: Field, along: Field, rng: np.random.Generator) -> Field:
    x, y = _staggered(across, along, rng.uniform(0.12, 0.16))
    return _to_field(x * x + y * y < rng.uniform(0.075, 0.11))


def _floral(across: Field, along: Field, rng: np.random.Generator) -> Field:
    x, y = _staggered(across, along, rng.uniform(0.21, 0.26))
    radius = np.hypot(x, y)
    petals = radius < 0.29 + 0.14 * np.cos(5 * np.arctan2(y, x) + rng.uniform(0, 6))
    return _to_field(petals & (radius > 0.11))


def _gradient(across: Field, along: Field, rng: np.random.Generator) -> Field:
    """From the first colour to at most 90 % of the second, so that the first colour stays dominant."""
    side = 1 if rng.random() < 0.5 else -1
    share: Field = np.clip(np.float32(0.36) + np.float32(1.5 * side) * along, 0, 0.9)
    return share


def _two_tone(across: Field, along: Field, rng: np.random.Generator) -> Field:
    side = 1 if rng.random() < 0.5 else -1
    return _to_field(side * along > rng.uniform(0.02, 0.07))


def _logo(across: Field, along: Field, rng: np.random.Generator) -> Field:
    """One emblem in the centre of the largest area of cloth: star, ring, bars or heart."""
    x, y = across / np.float32(0.135), along / np.float32(0.135)
    radius = np.hypot(x, y)
    emblem = int(rng.integers(4))
    if emblem == 0:
        return _to_field(radius < 0.72 - 0.34 * np.cos(5 * np.arctan2(y, x) - np.pi / 2))
    if emblem == 1:
        return _to_field((radius < 0.95) & (radius > 0.5))
    if emblem == 2:
        return _to_field(
            (np.abs(x) < 1.15) & (np.abs(y) < 0.62) & ((np.abs(y) > 0.25) | (_sawtooth(x * 1.3) < 0.5))
        )
    return _to_field((x * x + (y + 0.62 * np.sqrt(np.abs(x)) - 0.15) ** 2) < 0.75)


_FIELDS: dict[str, Callable[[Field, Field, np.random.Generator], Field]] = {
    "stripes": _stripes,
    "checks": _checks,
    "dots": _dots,
    "floral": _floral,
    "gradient": _gradient,
    "two-tone": _two_tone,
    "logo": _logo,
}


def _deepest_point(is_cloth: NDArray[np.bool_]) -> tuple[float, float]:
    """The point of the cloth with the largest distance to its edge, for an emblem or a seam."""
    step = max(1, len(is_cloth) // 32)
    # Without padding, the blur would continue the cloth beyond the edge of the canvas.
    coarse = np.pad(is_cloth[step // 2 :: step, step // 2 :: step], _PADDING)
    cloth = Image.fromarray(coarse.astype(np.uint8) * np.uint8(255))
    # The wide blur breaks ties inside a large area, where the narrow one is constant.
    narrow, wide = (np.asarray(cloth.filter(ImageFilter.BoxBlur(radius)), int) for radius in (4, 8))
    depth = (2 * narrow + wide)[_PADDING:-_PADDING, _PADDING:-_PADDING]
    row, column = divmod(int(depth.argmax()), depth.shape[1])
    return (column + 0.5) / depth.shape[1], (row + 0.5) / depth.shape[0]


def _staggered(across: Field, along: Field, period: float) -> tuple[Field, Field]:
    """Offsets from the nearest cell centre, in -0.5..0.5; every other row is shifted by half a cell."""
    row = np.floor(along / period + 0.5)
    return _sawtooth(across / period + 0.5 + row * 0.5) - 0.5, along / period - row


def _sawtooth(x: Field) -> Field:
    return x - np.floor(x)


def _to_field(mask: NDArray[np.bool_]) -> Field:
    return mask.astype(np.float32)
