"""A pen that draws a thing as a map of materials, not of colours.

Each pixel holds one `Material`. The painter who follows decides what cloth looks like
(pattern, colour, light), so one silhouette serves every colour and pattern.
Coordinates are fractions of the canvas, x to the right and y down.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Point = tuple[float, float]
Points = list[Point]


class Material(IntEnum):
    """What a pixel is made of. The four kinds of cloth take the item's colour and pattern."""

    NOTHING = 0
    CLOTH = 1
    SHADE = 2  # cloth turned from the light
    FOLD = 3  # a crease or a seam
    LIGHT = 4  # cloth facing the light
    TRIM = 5  # the item's second colour, unpatterned
    INK = 6
    METAL = 7
    WHITE = 8
    GLASS = 9
    WOOD = 10
    GUM = 11
    SKIN = 12
    YELLOW = 13
    RED = 14


class Sketch:
    """A square canvas of materials, empty at first; later strokes cover earlier ones."""

    def __init__(self, size_px: int, wobble: np.random.Generator | None = None) -> None:
        """`wobble` moves every corner a little, so that no two drawings of a kind agree."""
        self._image = Image.new("L", (size_px, size_px), Material.NOTHING)
        self._pen = ImageDraw.Draw(self._image)
        self._size_px = size_px
        self._wobble = wobble

    def materials(self) -> NDArray[np.uint8]:
        """The `Material` number of each pixel, [size, size]."""
        return np.asarray(self._image)

    def shape(self, corners: Points, material: Material) -> None:
        """A filled polygon with straight sides."""
        self._pen.polygon(self._pixels(self._wobbled(corners)), fill=material)

    def blob(self, knots: Points, material: Material) -> None:
        """A filled closed curve through the knots (Catmull-Rom)."""
        self._pen.polygon(self._pixels(_closed_curve(self._wobbled(knots))), fill=material)

    def oval(self, centre: Point, rx: float, ry: float, material: Material) -> None:
        """A filled ellipse with half-axes `rx` and `ry`."""
        (x, y), s = centre, self._size_px
        self._pen.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=material)

    def ring(self, centre: Point, rx: float, ry: float, width: float, material: Material) -> None:
        """An ellipse's outline, `width` thick, inwards from the half-axes."""
        (x, y), s = centre, self._size_px
        box = ((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s)
        self._pen.ellipse(box, outline=material, width=max(1, round(width * s)))

    def slab(
        self, left: float, top: float, right: float, bottom: float, material: Material, corner: float = 0.03
    ) -> None:
        """An upright rectangle with rounded corners."""
        s = self._size_px
        box = (left * s, top * s, right * s, bottom * s)
        self._pen.rounded_rectangle(box, radius=corner * s, fill=material)

    def line(self, points: Points, width: float, material: Material) -> None:
        """A thick open line with rounded joints, straight from point to point."""
        self._pen.line(
            self._pixels(points), fill=material, joint="curve", width=max(1, round(width * self._size_px))
        )

    def bow(self, points: Points, width: float, material: Material) -> None:
        """A thick open curve through the points (Catmull-Rom)."""
        self.line(_open_curve(points), width, material)

    def _wobbled(self, points: Points) -> Points:
        if self._wobble is None:
            return points
        moves = self._wobble.uniform(-0.011, 0.011, (len(points), 2))
        return [(x + dx, y + dy) for (x, y), (dx, dy) in zip(points, moves.tolist(), strict=True)]

    def _pixels(self, points: Points) -> Points:
        return [(x * self._size_px, y * self._size_px) for x, y in points]


def mirrored(left: Points) -> Points:
    """A left half, listed from top to bottom, followed by its mirror image back up."""
    return left + [(1 - x, y) for x, y in reversed(left)]


def _closed_curve(knots: Points) -> Points:
    p = np.array(knots)
    return _spline(np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0))


def _open_curve(knots: Points) -> Points:
    p = np.array([knots[0], *knots, knots[-1]])
    return [*_spline(p[:-3], p[1:-2], p[2:-1], p[3:]), knots[-1]]


_STEPS = np.arange(8)[None, :, None] / 8


def _spline(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]
) -> Points:
    """Points from each b towards its c, with a and d as the knots before and after."""
    a, b, c, d = a[:, None], b[:, None], c[:, None], d[:, None]
    t = _STEPS
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return [(x, y) for x, y in curve.reshape(-1, 2).tolist()]
