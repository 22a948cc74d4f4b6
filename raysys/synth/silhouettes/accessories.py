"""Accessories: hats, caps, watches, sunglasses, scarves."""

from raysys.synth.sketch import Material, Sketch, mirrored


def hat(sketch: Sketch, style: str) -> None:
    """A crown with a ribbon, on a brim."""
    if style == "bucket":
        sketch.polygon(
            mirrored([(0.32, 0.24), (0.27, 0.52), (0.10, 0.74), (0.26, 0.81), (0.42, 0.83)]), Material.CLOTH
        )
        sketch.ellipse((0.5, 0.25), 0.18, 0.05, Material.LIGHT)
        sketch.curve([(0.27, 0.52), (0.5, 0.58), (0.73, 0.52)], 0.022, Material.FOLD)
        sketch.curve([(0.20, 0.65), (0.5, 0.72), (0.80, 0.65)], 0.012, Material.FOLD)
        return
    reach = 0.47 if style == "sun" else 0.40
    sketch.ellipse((0.5, 0.66), reach, 0.145 if style == "sun" else 0.10, Material.CLOTH)
    sketch.ellipse((0.5, 0.645), 0.25, 0.075, Material.SHADE)
    if style == "sun":
        sketch.closed_curve(mirrored([(0.38, 0.30), (0.28, 0.42), (0.26, 0.64)]), Material.CLOTH)
    else:
        sketch.closed_curve(
            mirrored([(0.45, 0.28), (0.36, 0.22), (0.29, 0.34), (0.26, 0.64)]), Material.CLOTH
        )
        sketch.curve([(0.42, 0.25), (0.5, 0.34), (0.58, 0.25)], 0.02, Material.FOLD)
    sketch.curve([(0.265, 0.58), (0.5, 0.65), (0.735, 0.58)], 0.075, Material.TRIM)


def cap(sketch: Sketch, style: str) -> None:
    """A dome, seen from the side, with the peak on the left."""
    dome = [
        (0.34, 0.62),
        (0.35, 0.42),
        (0.48, 0.27),
        (0.64, 0.24),
        (0.82, 0.33),
        (0.92, 0.52),
        (0.91, 0.66),
        (0.62, 0.68),
    ]
    sketch.closed_curve(dome, Material.CLOTH)
    if style == "trucker":
        sketch.closed_curve(
            [(0.62, 0.25), (0.82, 0.33), (0.92, 0.52), (0.91, 0.66), (0.64, 0.68), (0.66, 0.45)],
            Material.WHITE,
        )
        for step in range(4):
            sketch.line([(0.66, 0.36 + 0.08 * step), (0.90, 0.40 + 0.07 * step)], 0.010, Material.METAL)
    else:
        sketch.curve([(0.64, 0.24), (0.76, 0.42), (0.79, 0.66)], 0.014, Material.FOLD)
        sketch.curve([(0.64, 0.24), (0.50, 0.42), (0.46, 0.64)], 0.014, Material.FOLD)
    if style == "flat":
        sketch.polygon([(0.03, 0.57), (0.40, 0.55), (0.50, 0.67), (0.05, 0.65)], Material.TRIM)
    else:
        sketch.closed_curve(
            [(0.03, 0.72), (0.12, 0.60), (0.36, 0.54), (0.52, 0.66), (0.30, 0.67), (0.10, 0.77)],
            Material.TRIM,
        )
    sketch.curve([(0.36, 0.63), (0.62, 0.69), (0.91, 0.65)], 0.025, Material.FOLD)
    sketch.ellipse((0.64, 0.235), 0.035, 0.022, Material.TRIM)


def watch(sketch: Sketch, style: str) -> None:
    """A dial with hands on a strap that runs from top to bottom."""
    sketch.polygon([(0.39, 0.03), (0.61, 0.03), (0.65, 0.34), (0.35, 0.34)], Material.CLOTH)
    sketch.polygon([(0.35, 0.66), (0.65, 0.66), (0.60, 0.97), (0.40, 0.97)], Material.CLOTH)
    for step in range(4):
        sketch.ellipse((0.5, 0.76 + 0.05 * step), 0.012, 0.012, Material.INK)
    sketch.rectangle(0.37, 0.02, 0.63, 0.07, Material.METAL, 0.01)
    sketch.rectangle(0.75, 0.46, 0.83, 0.54, Material.METAL, 0.01)
    if style == "square":
        sketch.rectangle(0.26, 0.26, 0.74, 0.74, Material.METAL, 0.06)
        sketch.rectangle(0.31, 0.31, 0.69, 0.69, Material.WHITE, 0.03)
    else:
        sketch.ellipse((0.5, 0.5), 0.28, 0.28, Material.METAL)
        if style == "diver":
            sketch.ellipse((0.5, 0.5), 0.265, 0.265, Material.TRIM)
        sketch.ellipse((0.5, 0.5), 0.21, 0.21, Material.INK if style == "diver" else Material.WHITE)
    hands = Material.WHITE if style == "diver" else Material.INK
    for x, y in ((0.5, 0.34), (0.5, 0.66), (0.34, 0.5), (0.66, 0.5)):
        sketch.ellipse((x, y), 0.018, 0.018, hands)
    sketch.line([(0.5, 0.5), (0.5, 0.37)], 0.022, hands)
    sketch.line([(0.5, 0.5), (0.60, 0.56)], 0.028, hands)


def sunglasses(sketch: Sketch, style: str) -> None:
    """Two dark lenses in a thick frame, with the temples behind."""
    for side in (-1, 1):
        sketch.line(
            [(0.5 + side * 0.44, 0.42), (0.5 + side * 0.36, 0.22), (0.5 + side * 0.26, 0.20)],
            0.045,
            Material.SHADE,
        )
        x = 0.5 + side * 0.235
        if style == "round":
            sketch.ellipse((x, 0.54), 0.215, 0.215, Material.CLOTH)
            sketch.ellipse((x, 0.54), 0.15, 0.15, Material.INK)
        elif style == "square":
            sketch.rectangle(x - 0.22, 0.38, x + 0.22, 0.70, Material.CLOTH, 0.07)
            sketch.rectangle(x - 0.155, 0.445, x + 0.155, 0.64, Material.INK, 0.04)
        else:
            _aviator_lens(sketch, side, 1.0, Material.CLOTH)
            _aviator_lens(sketch, side, 0.68, Material.INK)
        sketch.line([(x - 0.08, 0.57), (x + 0.03, 0.47)], 0.030, Material.GLASS)
    sketch.curve([(0.43, 0.50), (0.5, 0.45), (0.57, 0.50)], 0.055, Material.CLOTH)


def scarf(sketch: Sketch, style: str) -> None:
    """A band of cloth with fringed ends: knotted, folded or laid out."""
    if style == "loop":
        _fringed_end(sketch, [(0.40, 0.40), (0.56, 0.40), (0.53, 0.86), (0.33, 0.86)])
        _fringed_end(sketch, [(0.48, 0.40), (0.64, 0.38), (0.74, 0.78), (0.55, 0.81)])
        sketch.closed_curve(
            [
                (0.5, 0.06),
                (0.24, 0.14),
                (0.19, 0.32),
                (0.34, 0.48),
                (0.5, 0.52),
                (0.66, 0.48),
                (0.81, 0.32),
                (0.76, 0.14),
            ],
            Material.CLOTH,
        )
        sketch.closed_curve(
            [(0.5, 0.13), (0.35, 0.18), (0.33, 0.26), (0.5, 0.31), (0.67, 0.26), (0.65, 0.18)], Material.FOLD
        )
        sketch.curve([(0.24, 0.34), (0.42, 0.45), (0.62, 0.44)], 0.018, Material.FOLD)
    elif style == "folded":
        _fringed_end(sketch, [(0.22, 0.40), (0.50, 0.40), (0.50, 0.84), (0.22, 0.84)])
        _fringed_end(sketch, [(0.48, 0.36), (0.76, 0.36), (0.76, 0.74), (0.48, 0.74)])
        sketch.rectangle(0.20, 0.12, 0.78, 0.46, Material.CLOTH, 0.10)
        for y in (0.24, 0.35, 0.45):
            sketch.line([(0.22, y), (0.76, y)], 0.02, Material.FOLD)
        sketch.line([(0.49, 0.46), (0.49, 0.72)], 0.02, Material.FOLD)
    else:
        sketch.curve(
            [(0.27, 0.34), (0.32, 0.16), (0.5, 0.09), (0.68, 0.16), (0.73, 0.34)], 0.15, Material.SHADE
        )
        _fringed_end(sketch, [(0.20, 0.26), (0.36, 0.24), (0.72, 0.80), (0.53, 0.86)])
        sketch.line([(0.80, 0.26), (0.60, 0.56)], 0.022, Material.FOLD)
        _fringed_end(sketch, [(0.64, 0.24), (0.80, 0.26), (0.47, 0.86), (0.28, 0.80)])
        sketch.line([(0.64, 0.25), (0.29, 0.78)], 0.016, Material.FOLD)


def _aviator_lens(sketch: Sketch, side: int, share: float, material: Material) -> None:
    drop = [
        (-0.15, -0.13),
        (0.08, -0.17),
        (0.22, -0.12),
        (0.20, 0.06),
        (0.08, 0.19),
        (-0.06, 0.16),
        (-0.16, 0.0),
    ]
    sketch.closed_curve([(0.5 + side * (0.235 + x * share), 0.53 + y * share) for x, y in drop], material)


def _fringed_end(sketch: Sketch, corners: list[tuple[float, float]]) -> None:
    """A quadrilateral of cloth with fringes on the side from the third to the fourth corner."""
    sketch.polygon(corners, Material.CLOTH)
    (right_x, right_y), (left_x, left_y) = corners[2], corners[3]
    for step in range(6):
        share = step / 5
        x, y = left_x + share * (right_x - left_x), left_y + share * (right_y - left_y)
        sketch.line([(x, y), (x, y + 0.09)], 0.020, Material.TRIM)
