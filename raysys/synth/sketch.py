"""Draw an object as a map of materials.

Each pixel has one `Material`; `painting` later assigns the colours. So one silhouette serves every
colour and pattern. Coordinates are fractions of the canvas, x to the right and y down.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Point = tuple[float, float]
Points = list[Point]


class Material(IntEnum):
    """The material of a pixel. The four cloth materials take the colour and pattern of the item."""

    EMPTY = 0
    CLOTH = 1
    SHADE = 2  # cloth facing away from the light
    FOLD = 3  # a crease or a seam
    LIGHT = 4  # cloth facing the light
    TRIM = 5  # the item's second colour, unpatterned
    INK = 6
    METAL = 7
    WHITE = 8
    GLASS = 9
    WOOD = 10
    RUBBER = 11
    SKIN = 12
    YELLOW = 13
    RED = 14


class Sketch:
    """A square canvas of materials, initially empty; later shapes cover earlier ones."""

    def __init__(self, size_px: int, jitter: np.random.Generator | None = None) -> None:
        """`jitter` shifts every point a little, so that no two drawings of a kind are equal."""
        self._image = Image.new("L", (size_px, size_px), Material.EMPTY)
        self._pen = ImageDraw.Draw(self._image)
        self._size_px = size_px
        self._jitter = jitter

    def materials(self) -> NDArray[np.uint8]:
        """The `Material` number of each pixel, [size, size]."""
        return np.asarray(self._image)

    def polygon(self, corners: Points, material: Material) -> None:
        """A filled polygon with straight sides."""
        self._pen.polygon(self._pixels(self._jittered(corners)), fill=material)

    def closed_curve(self, knots: Points, material: Material) -> None:
        """A filled closed Catmull-Rom curve through the knots."""
        self._pen.polygon(self._pixels(_closed_curve(self._jittered(knots))), fill=material)

    def ellipse(self, centre: Point, rx: float, ry: float, material: Material) -> None:
        """A filled ellipse with half-axes `rx` and `ry`."""
        (x, y), s = centre, self._size_px
        self._pen.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=material)

    def ring(self, centre: Point, rx: float, ry: float, width: float, material: Material) -> None:
        """The outline of an ellipse; its `width` extends inwards from the half-axes."""
        (x, y), s = centre, self._size_px
        box = ((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s)
        self._pen.ellipse(box, outline=material, width=max(1, round(width * s)))

    def rectangle(
        self, left: float, top: float, right: float, bottom: float, material: Material, corner: float = 0.03
    ) -> None:
        """A filled rectangle with rounded corners."""
        s = self._size_px
        box = (left * s, top * s, right * s, bottom * s)
        self._pen.rounded_rectangle(box, radius=corner * s, fill=material)

    def line(self, points: Points, width: float, material: Material) -> None:
        """A polyline with rounded joints."""
        self._pen.line(
            self._pixels(points), fill=material, joint="curve", width=max(1, round(width * self._size_px))
        )

    def curve(self, points: Points, width: float, material: Material) -> None:
        """An open Catmull-Rom curve through the points."""
        self.line(_open_curve(points), width, material)

    def _jittered(self, points: Points) -> Points:
        if self._jitter is None:
            return points
        moves = self._jitter.uniform(-0.011, 0.011, (len(points), 2))
        return [(x + dx, y + dy) for (x, y), (dx, dy) in zip(points, moves.tolist(), strict=True)]

    def _pixels(self, points: Points) -> Points:
        return [(x * self._size_px, y * self._size_px) for x, y in points]


def mirrored(left: Points) -> Points:
    """The points of a left half, from top to bottom, followed by their mirror images from bottom to top."""
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
    """Points from each `b` to its `c`, where `a` and `d` are the knots before and after."""
    a, b, c, d = a[:, None], b[:, None], c[:, None], d[:, None]
    t = _STEPS
    curve = b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)))
    return [(x, y) for x, y in curve.reshape(-1, 2).tolist()]
