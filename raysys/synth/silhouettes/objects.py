"""Objects that are not worn: kitchenware, furniture and hobby items."""

from raysys.synth.sketch import Material, Sketch, mirrored


def mug(sketch: Sketch, style: str) -> None:
    """A cup with one round handle on the right."""
    sketch.ring((0.72, 0.54), 0.20, 0.21, 0.065, Material.SHADE)
    if style == "round":
        sketch.closed_curve(
            [
                (0.16, 0.26),
                (0.68, 0.26),
                (0.74, 0.52),
                (0.66, 0.80),
                (0.5, 0.86),
                (0.34, 0.86),
                (0.18, 0.80),
                (0.10, 0.52),
            ],
            Material.CLOTH,
        )
    else:
        inset = 0.10 if style == "tapered" else 0.0
        sketch.polygon(
            [(0.14, 0.26), (0.70, 0.26), (0.70 - inset, 0.84), (0.14 + inset, 0.84)], Material.CLOTH
        )
        sketch.ellipse((0.42, 0.84), 0.28 - inset, 0.055, Material.CLOTH)
    sketch.ellipse((0.42, 0.26), 0.28, 0.08, Material.LIGHT)
    sketch.ellipse((0.42, 0.265), 0.245, 0.06, Material.RUBBER)


def teapot(sketch: Sketch, style: str) -> None:
    """A body with a spout on the left, a lid with a knob, and a handle."""
    rx, ry, y = {"round": (0.27, 0.25, 0.58), "tall": (0.22, 0.31, 0.56), "side-handle": (0.29, 0.20, 0.60)}[
        style
    ]
    sketch.closed_curve(
        [
            (0.5 - rx + 0.06, y - 0.02),
            (0.16, y - 0.16),
            (0.09, y - 0.28),
            (0.03, y - 0.27),
            (0.08, y - 0.08),
            (0.5 - rx + 0.05, y + 0.15),
        ],
        Material.SHADE,
    )
    if style == "side-handle":
        sketch.line([(0.5 + rx - 0.06, y - 0.02), (0.94, y - 0.17)], 0.08, Material.WOOD)
    else:
        sketch.ring((0.5 + rx, y - 0.02), 0.17, 0.18, 0.06, Material.SHADE)
    sketch.ellipse((0.5, y + ry - 0.01), rx * 0.6, 0.035, Material.SHADE)
    sketch.ellipse((0.5, y), rx, ry, Material.CLOTH)
    sketch.ellipse((0.5, y - ry + 0.045), rx * 0.62, 0.055, Material.FOLD)
    sketch.ellipse((0.5, y - ry + 0.02), rx * 0.58, 0.055, Material.LIGHT)
    sketch.ellipse((0.5, y - ry - 0.055), 0.045, 0.045, Material.TRIM)


def lamp(sketch: Sketch, style: str) -> None:
    """A shade on a stem with a foot."""
    if style == "desk":
        sketch.ellipse((0.66, 0.90), 0.22, 0.05, Material.INK)
        sketch.line([(0.66, 0.90), (0.78, 0.54), (0.46, 0.24)], 0.04, Material.METAL)
        sketch.ellipse((0.78, 0.54), 0.04, 0.04, Material.INK)
        sketch.ellipse((0.26, 0.47), 0.12, 0.06, Material.YELLOW)
        sketch.polygon([(0.40, 0.14), (0.56, 0.28), (0.41, 0.53), (0.09, 0.43)], Material.CLOTH)
        return
    top, foot = (0.04, 0.93) if style == "floor" else (0.08, 0.90)
    low = 0.32 if style == "floor" else 0.50
    wide = 0.22 if style == "floor" else 0.34
    sketch.line([(0.5, low), (0.5, foot)], 0.035 if style == "floor" else 0.05, Material.WOOD)
    if style == "table":
        sketch.closed_curve(mirrored([(0.47, 0.50), (0.40, 0.66), (0.42, 0.80), (0.38, 0.90)]), Material.TRIM)
    sketch.ellipse((0.5, foot - 0.01), 0.19, 0.045, Material.WOOD)
    sketch.ellipse((0.5, low), wide, 0.045, Material.YELLOW)
    sketch.polygon(mirrored([(0.5 - wide * 0.5, top), (0.5 - wide, low)]), Material.CLOTH)
    sketch.line([(0.5 - wide, low), (0.5 + wide, low)], 0.022, Material.TRIM)


def chair(sketch: Sketch, style: str) -> None:
    """A back, a seat seen from above and four legs."""
    for x_top, x_foot, foot in (
        (0.33, 0.35, 0.84),
        (0.71, 0.71, 0.84),
        (0.24, 0.20, 0.96),
        (0.80, 0.84, 0.96),
    ):
        sketch.line([(x_top, 0.58), (x_foot, foot)], 0.045, Material.WOOD)
    if style == "slat":
        for x in (0.32, 0.44, 0.57, 0.70):
            sketch.line([(x, 0.08), (x, 0.56)], 0.045, Material.CLOTH)
        sketch.rectangle(0.26, 0.05, 0.76, 0.15, Material.CLOTH, 0.04)
        sketch.rectangle(0.28, 0.28, 0.74, 0.34, Material.SHADE, 0.02)
    else:
        sketch.rectangle(0.25, 0.05, 0.77, 0.54, Material.CLOTH, 0.09)
    sketch.polygon([(0.28, 0.52), (0.74, 0.52), (0.85, 0.66), (0.19, 0.66)], Material.LIGHT)
    sketch.polygon([(0.19, 0.66), (0.85, 0.66), (0.85, 0.71), (0.19, 0.71)], Material.SHADE)
    if style == "arm":
        for side in (-1, 1):
            sketch.line(
                [(0.52 + side * 0.25, 0.36), (0.52 + side * 0.36, 0.40), (0.52 + side * 0.36, 0.64)],
                0.06,
                Material.WOOD,
            )


def guitar(sketch: Sketch, style: str) -> None:
    """A waisted body, and a neck with strings and tuning pegs."""
    top = 0.12 if style == "ukulele" else 0.03
    sketch.line([(0.5, top + 0.06), (0.5, 0.60)], 0.075 if style == "ukulele" else 0.06, Material.WOOD)
    sketch.polygon([(0.44, top), (0.56, top), (0.545, top + 0.11), (0.455, top + 0.11)], Material.INK)
    for step in range(3):
        for x in (0.425, 0.575):
            sketch.ellipse((x, top + 0.02 + 0.035 * step), 0.014, 0.012, Material.METAL)
    if style == "electric":
        sketch.closed_curve(
            [
                (0.30, 0.48),
                (0.36, 0.60),
                (0.27, 0.76),
                (0.34, 0.94),
                (0.5, 0.96),
                (0.68, 0.93),
                (0.73, 0.76),
                (0.64, 0.60),
                (0.68, 0.52),
                (0.57, 0.60),
                (0.43, 0.62),
            ],
            Material.CLOTH,
        )
        sketch.closed_curve([(0.50, 0.66), (0.62, 0.66), (0.66, 0.80), (0.55, 0.88)], Material.WHITE)
        sketch.line([(0.42, 0.70), (0.58, 0.70)], 0.035, Material.INK)
        sketch.line([(0.42, 0.80), (0.58, 0.80)], 0.035, Material.INK)
    else:
        sketch.closed_curve(
            mirrored([(0.42, 0.46), (0.32, 0.52), (0.345, 0.64), (0.25, 0.80), (0.36, 0.95)]), Material.CLOTH
        )
        sketch.ellipse((0.5, 0.645), 0.085, 0.08, Material.TRIM)
        sketch.ellipse((0.5, 0.645), 0.065, 0.06, Material.INK)
    sketch.line([(0.41, 0.875), (0.59, 0.875)], 0.030, Material.INK)
    sketch.line([(0.5, top + 0.10), (0.5, 0.87)], 0.014, Material.METAL)


def camera(sketch: Sketch, style: str) -> None:
    """A box with a big round lens."""
    if style == "instant":
        sketch.rectangle(0.16, 0.16, 0.84, 0.88, Material.CLOTH, 0.10)
        sketch.rectangle(0.24, 0.76, 0.76, 0.82, Material.INK, 0.01)
        sketch.rectangle(0.62, 0.22, 0.78, 0.34, Material.GLASS, 0.02)
        sketch.rectangle(0.22, 0.22, 0.36, 0.32, Material.INK, 0.02)
        lens = (0.5, 0.53, 0.20)
    else:
        if style == "slr":
            sketch.polygon([(0.36, 0.32), (0.42, 0.17), (0.58, 0.17), (0.64, 0.32)], Material.METAL)
        else:
            sketch.rectangle(0.60, 0.21, 0.76, 0.32, Material.INK, 0.01)
        sketch.rectangle(0.16, 0.24, 0.28, 0.34, Material.INK, 0.015)
        sketch.rectangle(0.06, 0.30, 0.94, 0.80, Material.CLOTH, 0.06)
        sketch.rectangle(0.06, 0.30, 0.94, 0.40, Material.METAL, 0.03)
        lens = (0.5, 0.58, 0.22 if style == "slr" else 0.18)
    x, y, r = lens
    for share, material in (
        (1, Material.METAL),
        (0.86, Material.INK),
        (0.5, Material.GLASS),
        (0.3, Material.INK),
    ):
        sketch.ellipse((x, y), r * share, r * share, material)
    sketch.ellipse((x - r * 0.3, y - r * 0.3), r * 0.14, r * 0.14, Material.WHITE)


def toy_car(sketch: Sketch, style: str) -> None:
    """A side view with two thick wheels."""
    if style == "bus":
        sketch.rectangle(0.05, 0.26, 0.95, 0.74, Material.CLOTH, 0.08)
        windows = [(0.11 + 0.20 * step, 0.33, 0.26 + 0.20 * step, 0.50) for step in range(4)]
    elif style == "truck":
        sketch.rectangle(0.38, 0.22, 0.96, 0.70, Material.CLOTH, 0.03)
        sketch.polygon([(0.05, 0.72), (0.06, 0.54), (0.14, 0.38), (0.36, 0.38), (0.36, 0.72)], Material.TRIM)
        sketch.line([(0.08, 0.71), (0.94, 0.71)], 0.06, Material.INK)
        windows = [(0.15, 0.43, 0.31, 0.55)]
    else:
        sketch.closed_curve(
            [
                (0.04, 0.66),
                (0.07, 0.55),
                (0.25, 0.49),
                (0.38, 0.32),
                (0.66, 0.32),
                (0.79, 0.49),
                (0.94, 0.54),
                (0.96, 0.68),
                (0.84, 0.75),
                (0.14, 0.75),
            ],
            Material.CLOTH,
        )
        windows = [(0.34, 0.37, 0.50, 0.51), (0.54, 0.37, 0.69, 0.51)]
    for left, top, right, bottom in windows:
        sketch.rectangle(left, top, right, bottom, Material.GLASS, 0.02)
    for x in (0.25, 0.75):
        sketch.ellipse((x, 0.75), 0.125, 0.125, Material.INK)
        sketch.ellipse((x, 0.75), 0.06, 0.06, Material.METAL)
    sketch.ellipse((0.07, 0.62), 0.028, 0.028, Material.YELLOW)
