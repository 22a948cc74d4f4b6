"""One item's photo: its object, in its seller's place, under this shot's light, as a JPEG.

Order follows the light: backdrop, shadow, object, things in front, light, lens, sensor, crop.
Every random choice comes from the seeds that the item carries, never from global state.
"""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from raysys.synth.backdrops import Photo, draw_backdrop
from raysys.synth.clutter import foreground, hang, stray_object, watermark
from raysys.synth.items import DrawnItem
from raysys.synth.painting import Rgba, dye_for, paint
from raysys.synth.patterns import pattern_field
from raysys.synth.silhouettes import SILHOUETTES
from raysys.synth.sketch import Sketch

JPEG_QUALITY = 88
_OVERSAMPLING = 2  # things are drawn at twice the size and halved: smooth edges
_STRAY_SHARE = 0.15
_QUARTER_TURN_SHARE = 0.08  # clothes and bags lie on the floor any way round


def render_item(item: DrawnItem, size_px: int = 96) -> bytes:
    """The item's photo as JPEG bytes, `size_px` square; the same bytes on every call."""
    place, shot = np.random.default_rng(item.place_seed), np.random.default_rng(item.shot_seed)
    photo = draw_backdrop(item.backdrop, place, shot, size_px)
    if shot.random() < _STRAY_SHARE:
        photo = _put_stray(photo, shot)
    photo = _put(photo, _turned(_draw_object(item, size_px, shot), _item_corners(item, shot)), shot)
    photo = _put_foreground(photo, place, shot)
    image = _exposed(photo, shot)
    return _as_jpeg(_cropped(image, item.crop_seed))


def _draw_object(item: DrawnItem, size_px: int, shot: np.random.Generator) -> Rgba:
    look = np.random.default_rng(item.look_seed)
    sketch = Sketch(size_px * _OVERSAMPLING, wobble=look)
    hang(sketch, item.category, shot)
    SILHOUETTES[item.kind](sketch, item.style)
    materials = sketch.materials()
    field = pattern_field(item.pattern, materials, look)
    return paint(materials, field, dye_for(item.colour, item.pattern, look))


def _item_corners(item: DrawnItem, shot: np.random.Generator) -> NDArray[np.float64]:
    """Where the drawing's corners land in the frame: turned, scaled, moved, in perspective."""
    turn = shot.normal(0, np.deg2rad(13))
    if item.category.startswith("fashion") and shot.random() < _QUARTER_TURN_SHARE:
        turn += _either_side(shot) * np.pi / 2
    aspect = np.random.default_rng([item.look_seed, 1]).uniform(0.9, 1.1)
    centre = 0.5 + shot.uniform(-0.08, 0.08, 2)
    return _corners(centre, shot.uniform(0.66, 0.98), aspect, turn, shot)


def _put_stray(photo: Photo, shot: np.random.Generator) -> Photo:
    """Another object behind the item, with its middle near or over the frame's edge."""
    thing = stray_object(photo.shape[-1] * _OVERSAMPLING, shot)
    along, side = shot.uniform(0, 1), 0.5 + 0.53 * _either_side(shot)
    centre = np.array((along, side) if shot.random() < 0.4 else (side, along))
    return _put(photo, _turned(thing, _corners(centre, 0.5, 1.0, shot.uniform(0, 6), shot)), shot)


def _corners(
    centre: NDArray[np.float64], scale: float, aspect: float, turn: float, shot: np.random.Generator
) -> NDArray[np.float64]:
    flip = _either_side(shot)
    square = np.array(((-flip, -1), (flip, -1), (flip, 1), (-flip, 1))) * 0.5 * scale
    square = square * (aspect**0.5, aspect**-0.5)
    cos, sin = np.cos(turn), np.sin(turn)
    sheared = square @ np.array(((cos, sin), (-sin, cos))) + shot.uniform(-0.035, 0.035, (4, 2))
    return np.asarray(sheared + centre)


def _turned(thing: Rgba, corners: NDArray[np.float64]) -> Image.Image:
    """The drawing halved and moved to its corners, colours times coverage, coverage last."""
    half = _halved(thing)
    return half.transform(
        half.size,
        Image.Transform.PERSPECTIVE,
        _homography(corners * half.width, half.width),
        Image.Resampling.BILINEAR,
    )


def _halved(thing: Rgba) -> Image.Image:
    # RGBX, not RGBA: nothing is black here, so colours are premultiplied already and PIL
    # need not convert to and fro, which costs more than the turn itself.
    drawn = Image.frombuffer("RGBX", thing.shape[:2], thing.tobytes(), "raw", "RGBX", 0, 1)
    return drawn.reduce(_OVERSAMPLING)


def _homography(corners: NDArray[np.float64], size: int) -> tuple[float, ...]:
    """The eight numbers with which PIL maps a frame's pixel back to the drawing's."""
    rows, targets = [], []
    for (x, y), (u, v) in zip(corners.tolist(), ((0, 0), (size, 0), (size, size), (0, size)), strict=True):
        rows += [(x, y, 1, 0, 0, 0, -u * x, -u * y), (0, 0, 0, x, y, 1, -v * x, -v * y)]
        targets += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(targets, np.float64)).tolist())


def _put(photo: Photo, thing: Image.Image, shot: np.random.Generator) -> Photo:
    """The thing laid on the photo, rounded by light from one side, with a soft shadow."""
    size = thing.width
    blurred = thing.getchannel(3).filter(ImageFilter.BoxBlur(size * 0.03))
    height = np.asarray(blurred, dtype=np.float32) / np.float32(255)
    dx, dy = _either_side(shot) * max(1, size // 40), max(1, size // 48)
    relief = np.roll(height, (-dy, -dx), (0, 1)) - np.roll(height, (dy, dx), (0, 1))
    rounded = np.float32(0.80) + np.float32(0.22) * (height + relief)
    shadow = np.float32(0.45) * np.roll(height, (2 * dy, dx), (0, 1))
    colours, cover = _planes(thing)
    laid: Photo = photo * ((1 - shadow) * (1 - cover)) + colours * rounded
    return laid


def _planes(thing: Image.Image) -> tuple[Photo, NDArray[np.float32]]:
    """Colours times coverage as [3, size, size] in 0..255, and coverage as [size, size] in 0..1."""
    planes = np.ascontiguousarray(np.moveaxis(np.asarray(thing), -1, 0)).astype(np.float32)
    return planes[:3], planes[3] / np.float32(255)


def _put_foreground(photo: Photo, place: np.random.Generator, shot: np.random.Generator) -> Photo:
    size = photo.shape[-1]
    # First, while `place` is where it is in every photo of this seller: the mark never moves.
    mark = watermark(size, place)
    front = foreground(size * _OVERSAMPLING, place, shot)
    if front is not None:
        colours, cover = _planes(_halved(front))
        photo = photo * (1 - cover) + colours
    return photo if mark is None else photo + (255 - photo) * (np.float32(0.4) * mark)


def _exposed(photo: Photo, shot: np.random.Generator) -> Image.Image:
    """Light from one side, a mild colour cast, a little blur and the sensor's noise."""
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
    """A used photo cut a little tighter and brightened; seed 0 leaves it whole."""
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


def _either_side(shot: np.random.Generator) -> int:
    return 1 if shot.random() < 0.5 else -1
