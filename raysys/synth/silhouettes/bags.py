"""Bags, seen from the front: handbags, backpacks, totes."""

from raysys.synth.sketch import Material, Sketch, mirrored


def handbag(sketch: Sketch, style: str) -> None:
    """A stiff body below one arched handle, with a metal clasp."""
    sketch.curve([(0.30, 0.46), (0.32, 0.20), (0.5, 0.10), (0.68, 0.20), (0.70, 0.46)], 0.05, Material.TRIM)
    if style == "bucket":
        sketch.polygon(mirrored([(0.24, 0.40), (0.28, 0.66), (0.33, 0.90)]), Material.CLOTH)
        sketch.ellipse((0.5, 0.41), 0.26, 0.065, Material.FOLD)
        sketch.curve([(0.26, 0.50), (0.5, 0.57), (0.74, 0.50)], 0.022, Material.TRIM)
        sketch.ellipse((0.5, 0.60), 0.035, 0.05, Material.METAL)
        return
    if style == "flap":
        sketch.polygon(mirrored([(0.20, 0.42), (0.09, 0.86)]), Material.CLOTH)
        sketch.closed_curve(mirrored([(0.22, 0.41), (0.17, 0.58), (0.36, 0.68)]), Material.LIGHT)
        sketch.curve(
            [(0.16, 0.56), (0.36, 0.68), (0.5, 0.69), (0.64, 0.68), (0.84, 0.56)], 0.018, Material.FOLD
        )
    else:
        sketch.rectangle(0.14, 0.40, 0.86, 0.86, Material.CLOTH, 0.05)
        sketch.line([(0.15, 0.50), (0.85, 0.50)], 0.020, Material.FOLD)
        sketch.rectangle(0.14, 0.78, 0.86, 0.86, Material.SHADE, 0.03)
    for x in (0.30, 0.70):
        sketch.ellipse((x, 0.44), 0.028, 0.028, Material.METAL)
    sketch.rectangle(0.455, 0.60, 0.545, 0.72, Material.METAL, 0.02)


def backpack(sketch: Sketch, style: str) -> None:
    """A tall rounded body with a front pocket, a loop on top and straps at the sides."""
    sketch.curve([(0.42, 0.13), (0.44, 0.055), (0.56, 0.055), (0.58, 0.13)], 0.035, Material.TRIM)
    for side in (-1, 1):
        sketch.curve(
            [(0.5 + side * 0.24, 0.24), (0.5 + side * 0.40, 0.46), (0.5 + side * 0.29, 0.86)],
            0.06,
            Material.SHADE,
        )
    if style == "round":
        sketch.closed_curve(
            mirrored([(0.40, 0.12), (0.23, 0.32), (0.19, 0.64), (0.30, 0.90)]), Material.CLOTH
        )
    elif style == "school":
        sketch.rectangle(0.22, 0.10, 0.78, 0.93, Material.CLOTH, 0.17)
    else:
        sketch.rectangle(0.23, 0.22, 0.77, 0.93, Material.CLOTH, 0.06)
        sketch.rectangle(0.27, 0.09, 0.73, 0.25, Material.SHADE, 0.06)
        sketch.line([(0.5, 0.12), (0.5, 0.48)], 0.045, Material.TRIM)
        sketch.rectangle(0.465, 0.40, 0.535, 0.46, Material.METAL, 0.01)
    if style != "roll-top":
        sketch.curve(
            [(0.27, 0.40), (0.32, 0.22), (0.5, 0.17), (0.68, 0.22), (0.73, 0.40)], 0.018, Material.INK
        )
    sketch.rectangle(0.29, 0.54, 0.71, 0.85, Material.LIGHT, 0.06)
    sketch.curve([(0.30, 0.60), (0.5, 0.58), (0.70, 0.60)], 0.022, Material.INK)
    sketch.line([(0.62, 0.60), (0.62, 0.68)], 0.025, Material.METAL)


def tote(sketch: Sketch, style: str) -> None:
    """A soft, square bag with two long handles."""
    left, right, top, bottom = {
        "tall": (0.25, 0.75, 0.38, 0.96),
        "wide": (0.10, 0.90, 0.46, 0.90),
        "slouchy": (0.18, 0.82, 0.42, 0.92),
    }[style]
    for x_in, rise, material in ((0.15, 0.03, Material.FOLD), (0.13, 0.07, Material.TRIM)):
        sketch.curve(
            [
                (left + x_in, top + 0.04),
                (left + x_in + 0.02, rise + 0.12),
                (0.5, rise),
                (right - x_in - 0.02, rise + 0.12),
                (right - x_in, top + 0.04),
            ],
            0.036,
            material,
        )
    if style == "slouchy":
        sketch.closed_curve(
            [
                (left, top),
                (0.5, top + 0.05),
                (right, top),
                (right + 0.08, 0.74),
                (right - 0.04, bottom),
                (left + 0.04, bottom),
                (left - 0.08, 0.74),
            ],
            Material.CLOTH,
        )
    else:
        sketch.polygon(
            [(left, top), (right, top), (right - 0.02, bottom), (left + 0.02, bottom)], Material.CLOTH
        )
    sketch.line([(left + 0.02, top + 0.055), (right - 0.02, top + 0.055)], 0.014, Material.FOLD)
    for x in (left + 0.13, right - 0.13):
        sketch.line([(x, top), (x, top + 0.11)], 0.036, Material.TRIM)
