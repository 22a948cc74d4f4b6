"""Everything in a photo besides item and backdrop: hanger, hand, ruler, sticker, watermark, stray object."""

import numpy as np
from numpy.typing import NDArray

from raysys.synth.attributes import COLOURS, KINDS, PATTERNS
from raysys.synth.painting import Rgba, choose_colours, paint
from raysys.synth.patterns import pattern_field
from raysys.synth.silhouettes import SILHOUETTES
from raysys.synth.sketch import Material, Sketch

_HANGING = ("fashion/tops", "fashion/dresses")


def add_hanger(sketch: Sketch, category: str, shot: np.random.Generator) -> None:
    """Draw a hanger in 30 % of the photos of garments; the garment, drawn later, covers most of it."""
    if category in _HANGING and shot.random() < 0.3:
        material = Material.WOOD if shot.random() < 0.5 else Material.INK
        sketch.line([(0.22, 0.21), (0.5, 0.10), (0.78, 0.21)], 0.035, material)
        sketch.curve(
            [(0.5, 0.10), (0.5, 0.06), (0.55, 0.03), (0.52, 0.005), (0.47, 0.02)], 0.022, Material.METAL
        )


def stray_object(size_px: int, shot: np.random.Generator) -> Rgba:
    """Another object, to be pasted partly outside the frame."""
    names = tuple(KINDS)
    kind = names[int(shot.integers(len(names)))]
    colour = tuple(COLOURS)[int(shot.integers(len(COLOURS)))]
    pattern = PATTERNS[int(shot.integers(len(PATTERNS)))]
    sketch = Sketch(size_px)
    SILHOUETTES[kind](sketch, KINDS[kind].styles[0])
    materials = sketch.materials()
    return paint(materials, pattern_field(pattern, materials, shot), choose_colours(colour, pattern, shot))


def foreground(size_px: int, location: np.random.Generator, shot: np.random.Generator) -> Rgba | None:
    """A full-size layer in front of the item; None for most photos."""
    has_sticker = location.random() < 0.15
    draw = shot.random()
    if not has_sticker and draw > 0.3:
        return None
    sketch = Sketch(size_px)
    if draw < 0.12:
        _hand(sketch, shot)
    elif draw < 0.2:
        _ruler(sketch, shot)
    elif draw < 0.25:
        _thumb(sketch, shot)
    if has_sticker:
        _sticker(sketch, location)
    materials = sketch.materials()
    return paint(materials, np.zeros(materials.shape, np.float32), choose_colours("grey", "plain", location))


def watermark(size_px: int, location: np.random.Generator) -> NDArray[np.float32] | None:
    """The mask (0 or 1) of a seller's watermark, drawn as slanted bars; None for most sellers."""
    if location.random() >= 0.12:
        return None
    sketch = Sketch(size_px)
    y, slant = location.uniform(0.3, 0.7), location.uniform(-0.2, 0.2)
    for letter in range(7):
        x = 0.14 + 0.11 * letter
        top = y + slant * (x - 0.5)
        sketch.line([(x, top), (x + 0.03, top + 0.08)], 0.014, Material.WHITE)
        sketch.line([(x + 0.03, top + 0.08), (x + 0.07, top + (letter % 3) * 0.04)], 0.014, Material.WHITE)
    return (sketch.materials() > 0).astype(np.float32)


def _hand(sketch: Sketch, shot: np.random.Generator) -> None:
    """Four fingers that reach into the frame from the left or right edge."""
    side, y = (-1 if shot.random() < 0.5 else 1), shot.uniform(0.45, 0.8)
    edge = 0.5 + side * 0.52
    sketch.ellipse((edge, y + 0.05), 0.13, 0.15, Material.SKIN)
    for finger in range(4):
        tip = edge - side * (0.19 + 0.03 * (finger in (1, 2)))
        sketch.line(
            [(edge, y - 0.04 + 0.06 * finger), (tip, y - 0.08 + 0.065 * finger)], 0.055, Material.SKIN
        )
        sketch.ellipse((tip, y - 0.08 + 0.065 * finger), 0.029, 0.029, Material.SKIN)


def _thumb(sketch: Sketch, shot: np.random.Generator) -> None:
    """A fingertip over a corner of the lens."""
    x, y = (0.02 if shot.random() < 0.5 else 0.98), (0.02 if shot.random() < 0.5 else 0.98)
    sketch.ellipse((x, y), shot.uniform(0.12, 0.2), shot.uniform(0.12, 0.2), Material.SKIN)


def _ruler(sketch: Sketch, shot: np.random.Generator) -> None:
    """A measuring tape along the lower or left edge."""
    at = shot.uniform(0.9, 0.96)
    is_upright = shot.random() < 0.5

    def oriented(x: float, y: float) -> tuple[float, float]:
        return (1 - y, x) if is_upright else (x, y)

    sketch.line([oriented(0, at), oriented(1, at)], 0.075, Material.YELLOW)
    for tick in range(24):
        x = 0.02 + tick / 24
        sketch.line(
            [oriented(x, at - 0.035), oriented(x, at - (0.0 if tick % 4 == 0 else 0.018))],
            0.010,
            Material.INK,
        )


def _sticker(sketch: Sketch, location: np.random.Generator) -> None:
    """A round SALE badge, in the same corner of every photo of a seller."""
    x, y = (0.14 if location.random() < 0.5 else 0.86), (0.14 if location.random() < 0.5 else 0.86)
    sketch.ellipse((x, y), 0.12, 0.12, Material.RED if location.random() < 0.6 else Material.YELLOW)
    sketch.ring((x, y), 0.10, 0.10, 0.015, Material.WHITE)
    for bar in (-0.03, 0.02):
        sketch.line([(x - 0.06, y + bar), (x + 0.06, y + bar)], 0.025, Material.WHITE)
