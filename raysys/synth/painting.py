"""Convert a sketch of materials to colours, by one lookup in a small palette for each pixel."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from raysys.synth.attributes import ACCENTS, COLOURS, Rgb
from raysys.synth.sketch import Material

Rgba = NDArray[np.uint8]

_LEVELS = 16  # steps between an item's first and second colour: enough for a smooth gradient

_FIXED: dict[Material, Rgb] = {
    Material.INK: (48, 46, 50),
    Material.METAL: (176, 180, 186),
    Material.WHITE: (240, 240, 236),
    Material.GLASS: (150, 190, 206),
    Material.WOOD: (168, 118, 72),
    Material.RUBBER: (150, 104, 70),
    Material.SKIN: (232, 186, 152),
    Material.YELLOW: (250, 222, 120),
    Material.RED: (214, 44, 52),
}


@dataclass(frozen=True)
class ObjectColours:
    """The colours of one object: its named colour, the second colour of its pattern, and its trim."""

    first: Rgb
    second: Rgb
    trim: Rgb


def choose_colours(colour: str, pattern: str, rng: np.random.Generator) -> ObjectColours:
    """The colours of an object, with a small random offset. The trim of a plain object is a darker shade."""
    first = _jittered(COLOURS[colour], rng)
    names = ACCENTS[colour]
    second = _jittered(COLOURS[names[int(rng.integers(len(names)))]], rng)
    trim = _toned(np.array(first, np.float64), Material.FOLD) if pattern == "plain" else np.array(second)
    return ObjectColours(first, second, _rgb(trim))


def paint(materials: NDArray[np.uint8], field: NDArray[np.float32], colours: ObjectColours) -> Rgba:
    """Red, green, blue and coverage of each pixel, [size, size, 4]; all 0 where the sketch is empty."""
    levels = (field * np.float32(_LEVELS - 1) + np.float32(0.5)).astype(np.uint8)
    # One 32-bit word for each colour: indexing words is ten times as fast as indexing rows of bytes.
    words = _palette(colours).view(np.uint32)[:, 0]
    pixels: NDArray[np.uint32] = words[materials * np.uint8(_LEVELS) + levels]
    return pixels.view(np.uint8).reshape(*materials.shape, 4)


def _palette(colours: ObjectColours) -> NDArray[np.uint8]:
    """Colour and coverage by material and pattern level, [num_materials * levels, 4]."""
    palette = np.zeros((len(Material), _LEVELS, 4))
    palette[1:, :, 3] = 255
    share = np.linspace(0, 1, _LEVELS)[:, None]
    blend = np.array(colours.first) * (1 - share) + np.array(colours.second) * share
    for material in (Material.CLOTH, Material.SHADE, Material.FOLD, Material.LIGHT):
        palette[material, :, :3] = _toned(blend, material)
    palette[Material.TRIM, :, :3] = colours.trim
    for material, rgb in _FIXED.items():
        palette[material, :, :3] = rgb
    return palette.reshape(-1, 4).astype(np.uint8)


def _toned(rgb: NDArray[np.float64], material: Material) -> NDArray[np.float64]:
    """The colour of cloth in shade or light. On dark cloth, a crease is brighter, not darker."""
    factor, increase = {Material.SHADE: (0.84, 16.0), Material.FOLD: (0.66, 40.0)}.get(material, (1.0, 0.0))
    if material == Material.LIGHT:
        return rgb + (255 - rgb) * 0.18
    is_dark = rgb.mean(axis=-1, keepdims=True) < 75
    return np.where(is_dark, rgb + increase, rgb * factor)


def _jittered(rgb: Rgb, rng: np.random.Generator) -> Rgb:
    return _rgb(np.array(rgb) * rng.uniform(0.93, 1.05) + rng.uniform(-6, 6, 3))


def _rgb(values: NDArray[np.float64]) -> Rgb:
    red, green, blue = np.clip(values, 0, 255).round().astype(int).tolist()
    return red, green, blue
