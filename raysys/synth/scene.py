"""Render the photo of an item: its object at its seller's location, as a JPEG.

The steps follow a real photo: backdrop, shadow, object, objects in front, light, lens, sensor noise, crop.
Every random choice uses the seeds of the item, never global state.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from raysys.synth.backdrops import Photo, draw_backdrop
from raysys.synth.clutter import add_hanger, foreground, stray_object, watermark
from raysys.synth.items import DrawnItem
from raysys.synth.painting import Rgba, choose_colours, paint
from raysys.synth.patterns import pattern_field
from raysys.synth.silhouettes import SILHOUETTES
from raysys.synth.sketch import Sketch

JPEG_QUALITY = 88
_OVERSAMPLING = 2  # objects are drawn at twice the size and downsampled, for smooth edges
_STRAY_SHARE = 0.15
_QUARTER_TURN_SHARE = 0.08  # clothes and bags are sometimes turned by 90 degrees


def render_item(item: DrawnItem, size_px: int = 96) -> bytes:
    """The photo of the item as JPEG bytes, `size_px` x `size_px`; the same bytes on every call."""
    location, shot = np.random.default_rng(item.location_seed), np.random.default_rng(item.shot_seed)
    photo = draw_backdrop(item.backdrop, location, shot, size_px)
    if shot.random() < _STRAY_SHARE:
        photo = _paste_stray_object(photo, shot)
    photo = _paste(photo, _warped(_draw_object(item, size_px, shot), _item_corners(item, shot)), shot)
    photo = _paste_foreground(photo, location, shot)
    image = _with_light_and_noise(photo, shot)
    return _as_jpeg(_cropped(image, item.crop_seed))


def _draw_object(item: DrawnItem, size_px: int, shot: np.random.Generator) -> Rgba:
    object_rng = np.random.default_rng(item.object_seed)
    sketch = Sketch(size_px * _OVERSAMPLING, jitter=object_rng)
    add_hanger(sketch, item.category, shot)
    SILHOUETTES[item.kind](sketch, item.style)
    materials = sketch.materials()
    field = pattern_field(item.pattern, materials, object_rng)
    return paint(materials, field, choose_colours(item.colour, item.pattern, object_rng))


def _item_corners(item: DrawnItem, shot: np.random.Generator) -> NDArray[np.float64]:
    """The positions of the drawing's corners in the frame: rotated, scaled, shifted, in perspective."""
    turn = shot.normal(0, np.deg2rad(13))
    if item.category.startswith("fashion") and shot.random() < _QUARTER_TURN_SHARE:
        turn += _random_sign(shot) * np.pi / 2
    aspect = np.random.default_rng([item.object_seed, 1]).uniform(0.9, 1.1)
    centre = 0.5 + shot.uniform(-0.08, 0.08, 2)
    return _corners(centre, shot.uniform(0.66, 0.98), aspect, turn, shot)


def _paste_stray_object(photo: Photo, shot: np.random.Generator) -> Photo:
    """Paste another object behind the item, with its centre near or beyond the edge of the frame."""
    drawing = stray_object(photo.shape[-1] * _OVERSAMPLING, shot)
    along, side = shot.uniform(0, 1), 0.5 + 0.53 * _random_sign(shot)
    centre = np.array((along, side) if shot.random() < 0.4 else (side, along))
    return _paste(photo, _warped(drawing, _corners(centre, 0.5, 1.0, shot.uniform(0, 6), shot)), shot)


def _corners(
    centre: NDArray[np.float64], scale: float, aspect: float, turn: float, shot: np.random.Generator
) -> NDArray[np.float64]:
    flip = _random_sign(shot)
    square = np.array(((-flip, -1), (flip, -1), (flip, 1), (-flip, 1))) * 0.5 * scale
    square = square * (aspect**0.5, aspect**-0.5)
    cos, sin = np.cos(turn), np.sin(turn)
    sheared = square @ np.array(((cos, sin), (-sin, cos))) + shot.uniform(-0.035, 0.035, (4, 2))
    return np.asarray(sheared + centre)


def _warped(drawing: Rgba, corners: NDArray[np.float64]) -> Image.Image:
    """The drawing, downsampled and warped to the corners; colours times coverage, coverage last."""
    image = _downsampled(drawing)
    return image.transform(
        image.size,
        Image.Transform.PERSPECTIVE,
        _homography(corners * image.width, image.width),
        Image.Resampling.BILINEAR,
    )


def _downsampled(drawing: Rgba) -> Image.Image:
    # RGBX, not RGBA: empty pixels are black, so colours are already premultiplied, and PIL does not
    # convert back and forth, which takes longer than the warp.
    image = Image.frombuffer("RGBX", drawing.shape[:2], drawing.tobytes(), "raw", "RGBX", 0, 1)
    return image.reduce(_OVERSAMPLING)


def _homography(corners: NDArray[np.float64], size: int) -> tuple[float, ...]:
    """The eight coefficients with which PIL maps a pixel of the frame to a pixel of the drawing."""
    rows, targets = [], []
    for (x, y), (u, v) in zip(corners.tolist(), ((0, 0), (size, 0), (size, size), (0, size)), strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        targets += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(targets, np.float64)).tolist())


def _paste(photo: Photo, drawing: Image.Image, shot: np.random.Generator) -> Photo:
    """The photo with the object on it, shaded by light from one side, with a soft shadow."""
    size = drawing.width
    blurred = drawing.getchannel(3).filter(ImageFilter.BoxBlur(size * 0.03))
    height = np.asarray(blurred, dtype=np.float32) / np.float32(255)
    dx, dy = _random_sign(shot) * max(1, size // 40), max(1, size // 48)
    relief = np.roll(height, (-dy, -dx), (0, 1)) - np.roll(height, (dy, dx), (0, 1))
    rounded = np.float32(0.80) + np.float32(0.22) * (height + relief)
    shadow = np.float32(0.45) * np.roll(height, (2 * dy, dx), (0, 1))
    colours, coverage = _planes(drawing)
    pasted: Photo = photo * ((1 - shadow) * (1 - coverage)) + colours * rounded
    return pasted


def _planes(drawing: Image.Image) -> tuple[Photo, NDArray[np.float32]]:
    """Colours times coverage as [3, size, size] in 0..255, and coverage as [size, size] in 0..1."""
    planes = np.ascontiguousarray(np.moveaxis(np.asarray(drawing), -1, 0)).astype(np.float32)
    return planes[:3], planes[3] / np.float32(255)


def _paste_foreground(photo: Photo, location: np.random.Generator, shot: np.random.Generator) -> Photo:
    size = photo.shape[-1]
    # First, so that `location` is in the same state in every photo of a seller: the mark is always the same.
    mark = watermark(size, location)
    front = foreground(size * _OVERSAMPLING, location, shot)
    if front is not None:
        colours, coverage = _planes(_downsampled(front))
        photo = photo * (1 - coverage) + colours
    return photo if mark is None else photo + (255 - photo) * (np.float32(0.4) * mark)


def _with_light_and_noise(photo: Photo, shot: np.random.Generator) -> Image.Image:
    """The photo with light from one side, a mild colour cast, a little blur and sensor noise."""
    size = photo.shape[-1]
    angle, fall = shot.uniform(0, 2 * np.pi), shot.uniform(0, 0.3)
    steps = np.linspace(-0.5, 0.5, size, dtype=np.float32) * np.float32(fall)
    light = 1 + steps[None, :] * np.float32(np.cos(angle)) + steps[:, None] * np.float32(np.sin(angle))
    warmth, tint, exposure = shot.normal(0, 0.03), shot.normal(0, 0.01), shot.uniform(0.86, 1.1)
    cast = np.array((1 + warmth, 1 + tint, 1 - warmth), np.float32) * np.float32(exposure)
    noise = shot.standard_normal((size, size), dtype=np.float32) * np.float32(shot.uniform(1, 5))
    exposed = photo * light * cast[:, None, None] + noise
    pixels = np.moveaxis(np.clip(exposed, 0, 255).astype(np.uint8), 0, -1)
    image = Image.fromarray(np.ascontiguousarray(pixels))
    radius = shot.uniform(-0.003, 0.006) * size
    return image.filter(ImageFilter.BoxBlur(radius)) if radius > 0 else image


def _cropped(image: Image.Image, crop_seed: int) -> Image.Image:
    """The photo of a re-listing: slightly cropped and brightened; unchanged for seed 0."""
    if crop_seed == 0:
        return image
    rng = np.random.default_rng(crop_seed)
    left, top, right, bottom = rng.uniform(0, 0.05, 4) * image.width
    box = (left, top, image.width - right, image.height - bottom)
    gain = rng.uniform(0.93, 1.07)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box).point(lambda value: value * gain)


def _as_jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def _random_sign(shot: np.random.Generator) -> int:
    return 1 if shot.random() < 0.5 else -1
