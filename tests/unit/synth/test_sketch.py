"""Sketches have the expected materials, and patterns cover the expected share of the cloth."""

import numpy as np
import pytest

from raysys.synth.attributes import KINDS, PATTERNS
from raysys.synth.painting import ObjectColours, paint
from raysys.synth.patterns import pattern_field
from raysys.synth.silhouettes import SILHOUETTES
from raysys.synth.sketch import Material, Sketch, mirrored

DYE = ObjectColours(first=(200, 0, 0), second=(0, 0, 200), trim=(0, 200, 0))


def test_new_sketch_is_empty() -> None:
    assert not Sketch(8).materials().any()


def test_later_shapes_cover_earlier_ones() -> None:
    sketch = Sketch(8)
    sketch.rectangle(0, 0, 1, 1, Material.CLOTH)
    sketch.rectangle(0, 0, 0.5, 1, Material.INK, corner=0)
    assert sketch.materials()[4, 1] == Material.INK
    assert sketch.materials()[4, 6] == Material.CLOTH


def test_mirrored_outline_continues_on_the_right() -> None:
    assert mirrored([(0.4, 0), (0.1, 1)]) == [(0.4, 0), (0.1, 1), (0.9, 1), (0.6, 0)]


def test_closed_curve_passes_through_its_knots() -> None:
    sketch = Sketch(100)
    sketch.closed_curve([(0.5, 0.1), (0.9, 0.5), (0.5, 0.9), (0.1, 0.5)], Material.CLOTH)
    assert sketch.materials()[50, 12] == Material.CLOTH
    assert sketch.materials()[50, 7] == Material.EMPTY
    assert sketch.materials()[50, 50] == Material.CLOTH


@pytest.mark.parametrize("kind", SILHOUETTES)
def test_every_kind_has_cloth_and_an_empty_margin(kind: str) -> None:
    for style in KINDS[kind].styles:
        sketch = Sketch(96)
        SILHOUETTES[kind](sketch, style)
        materials = sketch.materials()
        is_cloth = (materials >= Material.CLOTH) & (materials <= Material.LIGHT)
        assert 0.05 < is_cloth.mean() < 0.75
        assert not materials[[0, -1]].any()
        assert not materials[:, [0, -1]].any()


def test_paint_colours_each_pixel_by_its_material() -> None:
    materials = np.array([[Material.EMPTY, Material.CLOTH, Material.CLOTH, Material.TRIM]], np.uint8)
    field = np.array([[0, 0, 1, 0]], np.float32)
    assert paint(materials, field, DYE).tolist() == [
        [[0, 0, 0, 0], [200, 0, 0, 255], [0, 0, 200, 255], [0, 200, 0, 255]]
    ]


def test_creases_are_darker_on_pale_cloth_and_brighter_on_dark_cloth() -> None:
    fold = np.array([[Material.FOLD]], np.uint8)
    field = np.zeros((1, 1), np.float32)
    pale, dark = (
        ObjectColours((200, 200, 200), (0, 0, 0), (0, 0, 0)),
        ObjectColours((40, 40, 40), (0, 0, 0), (0, 0, 0)),
    )
    assert paint(fold, field, pale)[0, 0, 0] == 132  # 200 * 0.66
    assert paint(fold, field, dark)[0, 0, 0] == 80  # 40 + 40


def test_emblem_is_in_the_centre_of_the_cloth() -> None:
    cloth = np.zeros((96, 96), np.uint8)
    cloth[48:, :48] = Material.CLOTH  # the lower left quarter: its centre is row 72, column 24
    row, column = np.argwhere(pattern_field("logo", cloth, np.random.default_rng(0)) > 0).mean(0)
    assert row == pytest.approx(72, abs=6)
    assert column == pytest.approx(24, abs=6)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_first_colour_covers_about_half_or_more_of_every_pattern(pattern: str) -> None:
    cloth = np.full((96, 96), Material.CLOTH, np.uint8)
    shares = [pattern_field(pattern, cloth, np.random.default_rng(seed)) for seed in range(8)]
    assert all(share.shape == (96, 96) and share.min() >= 0 and share.max() <= 1 for share in shares)
    mean = float(np.mean(shares))
    if pattern == "plain":
        assert mean == 0
    else:
        assert 0.02 < mean <= 0.52  # an emblem covers the least; checks cover half by design
