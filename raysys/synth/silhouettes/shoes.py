"""Shoes, seen from the side, with the toe on the left."""

from raysys.synth.sketch import Material, Sketch


def sneaker(sketch: Sketch, style: str) -> None:
    """A thick pale sole, a toe cap and laces; the style determines the collar height."""
    top = 0.20 if style == "high-top" else 0.36
    sketch.closed_curve(
        [
            (0.06, 0.66),
            (0.12, 0.57),
            (0.30, 0.51),
            (0.46, 0.40),
            (0.56, top + 0.02),
            (0.66, top + 0.04),
            (0.80, top),
            (0.90, top + 0.02),
            (0.91, 0.52),
            (0.94, 0.68),
            (0.5, 0.72),
        ],
        Material.CLOTH,
    )
    sketch.ellipse((0.73, top + 0.03), 0.15, 0.035, Material.INK)
    sketch.closed_curve([(0.05, 0.68), (0.10, 0.57), (0.22, 0.55), (0.27, 0.68)], Material.WHITE)
    sketch.curve([(0.04, 0.72), (0.20, 0.73), (0.5, 0.73), (0.80, 0.73), (0.95, 0.71)], 0.085, Material.WHITE)
    sketch.line([(0.06, 0.765), (0.94, 0.765)], 0.022, Material.RUBBER)
    sketch.curve([(0.50, 0.69), (0.62, 0.58), (0.82, 0.52)], 0.045, Material.TRIM)
    if style == "slip-on":
        sketch.polygon([(0.47, 0.42), (0.58, 0.39), (0.56, 0.50), (0.47, 0.53)], Material.INK)
        return
    for step in range(5 if style == "high-top" else 4):
        x, y = 0.34 + 0.06 * step, 0.52 - (0.055 if step < 3 else 0.065) * step
        sketch.line([(x - 0.02, y - 0.035), (x + 0.06, y + 0.035)], 0.026, Material.WHITE)


def boot(sketch: Sketch, style: str) -> None:
    """A shaft above a dark sole with a heel."""
    top = {"ankle": 0.30, "knee": 0.05, "lace-up": 0.16}[style]
    sketch.closed_curve(
        [
            (0.10, 0.80),
            (0.13, 0.69),
            (0.27, 0.64),
            (0.43, 0.55),
            (0.46, 0.40),
            (0.44, top + 0.02),
            (0.60, top),
            (0.79, top + 0.02),
            (0.78, 0.45),
            (0.80, 0.66),
            (0.79, 0.83),
            (0.45, 0.83),
        ],
        Material.CLOTH,
    )
    sketch.ellipse((0.615, top + 0.02), 0.165, 0.03, Material.FOLD)
    sketch.line([(0.09, 0.835), (0.80, 0.835)], 0.055, Material.INK)
    sketch.polygon([(0.62, 0.84), (0.80, 0.84), (0.80, 0.94), (0.64, 0.94)], Material.INK)
    sketch.curve([(0.46, 0.57), (0.62, 0.60), (0.78, 0.56)], 0.016, Material.FOLD)
    if style == "lace-up":
        for step in range(5):
            y = 0.55 - 0.075 * step
            sketch.line([(0.43, y), (0.55, y + 0.03)], 0.022, Material.TRIM)
            sketch.line([(0.43, y + 0.035), (0.55, y - 0.01)], 0.018, Material.TRIM)
    elif style == "ankle":
        sketch.polygon([(0.57, top + 0.03), (0.70, top + 0.03), (0.68, 0.54), (0.59, 0.54)], Material.INK)
    else:
        sketch.line([(0.44, 0.145), (0.79, 0.145)], 0.05, Material.TRIM)


def heel(sketch: Sketch, style: str) -> None:
    """An arched sole on a thin or thick heel."""
    if style == "block":
        sketch.polygon([(0.73, 0.44), (0.93, 0.42), (0.90, 0.82), (0.77, 0.82)], Material.SHADE)
    else:
        sketch.polygon([(0.78, 0.44), (0.93, 0.40), (0.885, 0.84), (0.855, 0.84)], Material.SHADE)
    sketch.closed_curve(
        [
            (0.04, 0.80),
            (0.08, 0.73),
            (0.22, 0.66),
            (0.34, 0.64),
            (0.48, 0.58),
            (0.64, 0.42),
            (0.78, 0.24),
            (0.92, 0.22),
            (0.94, 0.38),
            (0.86, 0.50),
            (0.72, 0.56),
            (0.50, 0.74),
            (0.34, 0.82),
            (0.12, 0.83),
        ],
        Material.CLOTH,
    )
    sketch.closed_curve(
        [
            (0.30, 0.66),
            (0.50, 0.60),
            (0.68, 0.43),
            (0.82, 0.26),
            (0.90, 0.26),
            (0.86, 0.34),
            (0.66, 0.50),
            (0.46, 0.65),
        ],
        Material.FOLD,
    )
    sketch.curve([(0.05, 0.82), (0.20, 0.84), (0.36, 0.82), (0.52, 0.73), (0.72, 0.56)], 0.022, Material.INK)
    if style == "strap":
        sketch.curve(
            [(0.87, 0.30), (0.76, 0.20), (0.62, 0.22), (0.55, 0.42), (0.50, 0.60)], 0.030, Material.CLOTH
        )
        sketch.ellipse((0.61, 0.24), 0.026, 0.026, Material.METAL)
