"""The backgrounds of the photos: eight floors, cloths and walls.

Each backdrop uses two random generators: `location` for what is constant in all photos of a seller (tint,
tile size), `shot` for the camera position. All return [3, size, size] float32 in 0..255: channels first,
because numpy multiplies a plane into three planes many times faster than into triples.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Photo = NDArray[np.float32]
Plane = NDArray[np.float32]
Rng = np.random.Generator


def draw_backdrop(backdrop: str, location: Rng, shot: Rng, size_px: int) -> Photo:
    """A photo of a seller's backdrop without an item. Camera tilt and distance vary by shot."""
    runs_down = backdrop in ("wood", "tatami") and location.random() < 0.5
    angle, zoom = runs_down * np.pi / 2 + shot.normal(0, 0.12), shot.uniform(0.85, 1.2)
    steps = (np.arange(size_px, dtype=np.float32) / size_px - 0.5) * np.float32(zoom)
    x, y = steps[None, :], steps[:, None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    dx, dy = shot.uniform(0, 4, 2).astype(np.float32)
    return _BACKDROPS[backdrop](x * cos + y * sin + dx, y * cos - x * sin + dy, location, shot)


def _wood(x: Plane, y: Plane, location: Rng, shot: Rng) -> Photo:
    tint = _tint(location, ((196, 150, 104), (150, 104, 66), (222, 190, 150), (104, 74, 54)))
    width = location.uniform(0.2, 0.32)
    plank = np.floor(y / width)
    grain = _smooth_noise(shot, 5, 40, x.shape[0])
    light = 1 + 0.07 * np.sin(plank * 5.3) + 0.05 * np.sin(14 * grain + y * 40) + 0.08 * grain
    seam = (_sawtooth(y / width) < 0.05) | (_sawtooth(x / 1.3 + plank * 0.37) < 0.012)
    return _shaded(tint, light * np.where(seam, 0.72, 1))


def _sheet(x: Plane, y: Plane, location: Rng, shot: Rng) -> Photo:
    tint = _tint(location, ((232, 230, 226), (206, 214, 226), (236, 216, 214), (214, 222, 206)))
    crumple = _smooth_noise(shot, 5, 4, x.shape[0]) + 0.5 * _smooth_noise(shot, 9, 9, x.shape[0])
    return _shaded(tint, 1 + 0.16 * _slope(crumple, x.shape[0]))


def _wall(x: Plane, y: Plane, location: Rng, shot: Rng) -> Photo:
    wall = _tint(location, ((226, 218, 204), (190, 204, 206), (222, 198, 184), (204, 200, 212)))
    floor = _tint(location, ((150, 116, 84), (120, 116, 114), (176, 150, 122)))
    height = np.linspace(0, 1, x.shape[0], dtype=np.float32)[:, None] + 0 * x
    skirting = shot.uniform(0.66, 0.82) + 0.08 * (x - x.mean())
    speck = 1 + 0.03 * _smooth_noise(shot, 60, 60, x.shape[0])
    photo = np.where(height > skirting, _shaded(floor, speck), _shaded(wall, speck))
    board = (height > skirting - 0.05) & (height <= skirting)
    return np.where(board, np.float32(238), photo)


def _grass(x: Plane, y: Plane, location: Rng, shot: Rng) -> Photo:
    tint = _tint(location, ((92, 138, 62), (116, 150, 74), (78, 116, 66)))
    size = x.shape[0]
    blades = _smooth_noise(shot, 60, 26, size) + _smooth_noise(shot, 40, 18, size)
    return _shaded(tint, 1 + 0.20 * blades + 0.12 * _smooth_noise(shot, 4, 4, size))


def _tiles(x: Plane, y: Plane, location: Rng, shot: Rng) -> Photo:
    tint = _tint(location, ((214, 218, 220), (160, 186, 196), (206, 186, 164), (150, 152, 156)))
    width = location.uniform(0.2, 0.34)
    grout = (_sawtooth(x / width) < 0.06) | (_sawtooth(y / width) < 0.06)
    each = np.sin(np.floor(x / width) * 12.9 + np.floor(y / width) * 78.2)
    return _shaded(tint, (1 + 0.05 * each) * np.where(grout, 0.78, 1))


def _bed(x: Plane, y: Plane, location: Rng, shot: Rng) -> Photo:
    tint = _tint(location, ((216, 206, 224), (232, 222, 200), (184, 202, 222), (226, 196, 200)))
    width = location.uniform(0.24, 0.34)
    a, b = _sawtooth((x + y) / width) - 0.5, _sawtooth((x - y) / width) - 0.5
    puff = 1 - 1.4 * (a**4 + b**4) * 4 + 0.12 * (a + b)
    return _shaded(tint, 0.9 + 0.16 * puff + 0.03 * _smooth_noise(shot, 6, 6, x.shape[0]))


def _tatami(x: Plane, y: Plane, location: Rng, shot: Rng) -> Photo:
    tint = _tint(location, ((202, 194, 136), (188, 188, 128), (210, 190, 142)))
    weave = np.sin(y * 230) * (0.5 + 0.5 * np.sin(x * 60))
    photo = _shaded(tint, 1 + 0.06 * weave + 0.04 * _smooth_noise(shot, 20, 4, x.shape[0]))
    border = _tint(location, ((58, 76, 60), (70, 58, 52), (48, 56, 84)))
    return np.where(_sawtooth(x / 1.15) < 0.09, border, photo)


def _carpet(x: Plane, y: Plane, location: Rng, shot: Rng) -> Photo:
    tint = _tint(location, ((150, 92, 84), (96, 112, 136), (186, 172, 150), (112, 124, 104)))
    second = _tint(location, ((214, 196, 160), (170, 160, 170), (132, 84, 72)))
    size, period = x.shape[0], location.uniform(0.36, 0.5)
    fluff = 1 + 0.12 * _smooth_noise(shot, 70, 70, size) + 0.08 * _smooth_noise(shot, 24, 24, size)
    diamond = np.abs(_sawtooth(x / period) - 0.5) + np.abs(_sawtooth(y / period) - 0.5)
    is_motif = ((diamond > 0.30) & (diamond < 0.38)) | (diamond < 0.10)
    return np.where(is_motif, _shaded(second, fluff), _shaded(tint, fluff))


_BACKDROPS: dict[str, Callable[[Plane, Plane, Rng, Rng], Photo]] = {
    "wood": _wood,
    "sheet": _sheet,
    "wall": _wall,
    "grass": _grass,
    "tiles": _tiles,
    "bed": _bed,
    "tatami": _tatami,
    "carpet": _carpet,
}


def _tint(location: Rng, choices: tuple[tuple[int, int, int], ...]) -> Plane:
    """One of the colours with a random offset for each location, [3, 1, 1]."""
    chosen = choices[int(location.integers(len(choices)))]
    return (np.array(chosen) + location.uniform(-14, 14, 3)).astype(np.float32)[:, None, None]


def _shaded(tint: Plane, light: Plane) -> Photo:
    return tint * light.astype(np.float32)


def _smooth_noise(shot: Rng, across: int, down: int, size_px: int) -> Plane:
    """Smooth noise in -1..1 with `across` x `down` bumps, [size, size]."""
    bumps = shot.integers(0, 256, (down, across), dtype=np.uint8)
    smooth = Image.fromarray(bumps).resize((size_px, size_px), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32) / np.float32(127.5) - 1


def _slope(height: Plane, size_px: int) -> Plane:
    """How much a surface with this height faces a light from the upper left."""
    down = np.diff(height, axis=0, prepend=height[:1])
    right = np.diff(height, axis=1, prepend=height[:, :1])
    return (down + right) * np.float32(size_px / 12)


def _sawtooth(x: Plane) -> Plane:
    return x - np.floor(x)
