"""Clothes laid flat: tops, dresses, skirts, trousers."""

from raysys.synth.sketch import Material, Sketch, mirrored


def t_shirt(sketch: Sketch, style: str) -> None:
    """Sleeves and neckline depend on the style; hem and shoulders are the same for all styles."""
    if style == "long sleeve":
        left = [
            (0.39, 0.13),
            (0.29, 0.16),
            (0.21, 0.25),
            (0.05, 0.74),
            (0.15, 0.79),
            (0.28, 0.47),
            (0.28, 0.88),
        ]
    else:
        left = [(0.39, 0.13), (0.28, 0.16), (0.05, 0.35), (0.15, 0.50), (0.27, 0.42), (0.26, 0.88)]
    sketch.polygon(mirrored(left), Material.CLOTH)
    if style == "v-neck":
        sketch.polygon([(0.38, 0.12), (0.62, 0.12), (0.5, 0.32)], Material.FOLD)
        sketch.line([(0.38, 0.12), (0.5, 0.32), (0.62, 0.12)], 0.025, Material.TRIM)
    else:
        sketch.ellipse((0.5, 0.135), 0.115, 0.075, Material.TRIM)
        sketch.ellipse((0.5, 0.125), 0.09, 0.05, Material.FOLD)
    sketch.line([(0.29, 0.30), (0.285, 0.44)], 0.012, Material.FOLD)
    sketch.line([(0.71, 0.30), (0.715, 0.44)], 0.012, Material.FOLD)
    sketch.line([(0.28, 0.845), (0.72, 0.845)], 0.012, Material.FOLD)


def hoodie(sketch: Sketch, style: str) -> None:
    """Unlike a long-sleeved shirt, it has a hood, ribbed cuffs and a front pocket."""
    left = [(0.38, 0.24), (0.27, 0.27), (0.18, 0.36), (0.04, 0.76), (0.17, 0.82), (0.27, 0.56), (0.25, 0.90)]
    sketch.polygon(mirrored(left), Material.CLOTH)
    for side in (-1, 1):
        sketch.line([(0.5 + side * 0.462, 0.75), (0.5 + side * 0.325, 0.81)], 0.05, Material.SHADE)
    sketch.rectangle(0.24, 0.85, 0.76, 0.92, Material.SHADE)
    sketch.closed_curve(
        [(0.5, 0.04), (0.33, 0.12), (0.31, 0.27), (0.41, 0.36), (0.59, 0.36), (0.69, 0.27), (0.67, 0.12)],
        Material.CLOTH,
    )
    sketch.closed_curve(
        [(0.5, 0.10), (0.40, 0.15), (0.39, 0.25), (0.5, 0.32), (0.61, 0.25), (0.60, 0.15)], Material.FOLD
    )
    sketch.polygon(mirrored([(0.38, 0.60), (0.30, 0.73), (0.30, 0.80)]), Material.SHADE)
    sketch.line([(0.38, 0.60), (0.30, 0.73)], 0.018, Material.FOLD)
    sketch.line([(0.62, 0.60), (0.70, 0.73)], 0.018, Material.FOLD)
    if style == "zip":
        sketch.line([(0.5, 0.33), (0.5, 0.92)], 0.030, Material.METAL)
        sketch.line([(0.5, 0.33), (0.5, 0.92)], 0.010, Material.INK)
    sketch.curve([(0.45, 0.33), (0.43, 0.42), (0.44, 0.52)], 0.020, Material.WHITE)
    sketch.curve([(0.55, 0.33), (0.57, 0.42), (0.56, 0.49)], 0.020, Material.WHITE)


def dress(sketch: Sketch, style: str) -> None:
    """A narrow waist with a belt above a flared skirt."""
    hem_y = 0.95 if style == "maxi" else 0.84
    if style == "sleeved":
        sketch.polygon([(0.36, 0.13), (0.20, 0.20), (0.20, 0.36), (0.36, 0.32)], Material.SHADE)
        sketch.polygon([(0.64, 0.13), (0.80, 0.20), (0.80, 0.36), (0.64, 0.32)], Material.SHADE)
        top = [(0.41, 0.11), (0.33, 0.14)]
    else:
        sketch.line([(0.40, 0.24), (0.42, 0.04)], 0.030, Material.CLOTH)
        sketch.line([(0.60, 0.24), (0.58, 0.04)], 0.030, Material.CLOTH)
        top = [(0.46, 0.25), (0.38, 0.19), (0.34, 0.24)]
    skirt_left = [
        (0.35, 0.32),
        (0.39, 0.44),
        (0.30, 0.58),
        (0.17, hem_y - 0.03),
        (0.34, hem_y),
        (0.44, hem_y - 0.02),
    ]
    sketch.polygon(mirrored(top + skirt_left), Material.CLOTH)
    for x_top, x_hem in ((0.44, 0.31), (0.5, 0.52), (0.56, 0.70)):
        sketch.line([(x_top, 0.50), (x_hem, hem_y - 0.03)], 0.014, Material.FOLD)
    sketch.line([(0.385, 0.44), (0.615, 0.44)], 0.045, Material.TRIM)


def skirt(sketch: Sketch, style: str) -> None:
    """A waistband above a flared, straight or pleated skirt."""
    hem_left = {"flared": 0.08, "pencil": 0.29, "pleated": 0.13}[style]
    hem_y = 0.86 if style == "pencil" else 0.78
    flare = [(0.33, 0.22), (hem_left, hem_y - 0.05), (hem_left + 0.14, hem_y), (0.42, hem_y - 0.02)]
    sketch.polygon(mirrored(flare), Material.CLOTH)
    num_folds = {"flared": 4, "pencil": 1, "pleated": 9}[style]
    for fold in range(1, num_folds + 1):
        share = fold / (num_folds + 1)
        x_hem = hem_left + share * (1 - 2 * hem_left)
        sketch.line([(0.34 + 0.32 * share, 0.27), (x_hem, hem_y - 0.03)], 0.016, Material.FOLD)
    sketch.rectangle(0.32, 0.17, 0.68, 0.25, Material.TRIM, 0.02)


def trousers(sketch: Sketch, style: str) -> None:
    """Two long legs; the style determines their width."""
    hem_left, hem_right = {"straight": (0.24, 0.45), "wide": (0.14, 0.46), "skinny": (0.32, 0.44)}[style]
    leg = [(0.31, 0.07), (0.27, 0.30), (hem_left, 0.94), (hem_right, 0.94), (0.49, 0.40)]
    sketch.polygon(mirrored(leg), Material.CLOTH)
    sketch.rectangle(0.305, 0.06, 0.695, 0.12, Material.SHADE, 0.015)
    sketch.line([(0.5, 0.12), (0.5, 0.40)], 0.016, Material.FOLD)
    sketch.curve([(0.30, 0.22), (0.37, 0.19), (0.40, 0.12)], 0.016, Material.FOLD)
    sketch.curve([(0.70, 0.22), (0.63, 0.19), (0.60, 0.12)], 0.016, Material.FOLD)
    sketch.ellipse((0.5, 0.09), 0.016, 0.016, Material.METAL)
    for x in (hem_left, 1 - hem_right):
        sketch.line([(x + 0.02, 0.90), (x + hem_right - hem_left - 0.02, 0.90)], 0.012, Material.FOLD)


def shorts(sketch: Sketch, style: str) -> None:
    """Two short legs; the sport style has a drawstring and side stripes."""
    leg = [(0.27, 0.20), (0.22, 0.42), (0.10, 0.74), (0.45, 0.80), (0.495, 0.52)]
    sketch.polygon(mirrored(leg), Material.CLOTH)
    sketch.rectangle(0.255, 0.18, 0.745, 0.26, Material.SHADE, 0.02)
    sketch.line([(0.5, 0.26), (0.5, 0.52)], 0.016, Material.FOLD)
    if style == "sport":
        sketch.line([(0.26, 0.27), (0.15, 0.74)], 0.045, Material.TRIM)
        sketch.line([(0.74, 0.27), (0.85, 0.74)], 0.045, Material.TRIM)
        sketch.curve([(0.48, 0.24), (0.45, 0.32), (0.46, 0.38)], 0.018, Material.WHITE)
        sketch.curve([(0.52, 0.24), (0.55, 0.32), (0.54, 0.38)], 0.018, Material.WHITE)
    else:
        sketch.curve([(0.25, 0.40), (0.34, 0.36), (0.38, 0.26)], 0.016, Material.FOLD)
        sketch.curve([(0.75, 0.40), (0.66, 0.36), (0.62, 0.26)], 0.016, Material.FOLD)
        sketch.line([(0.11, 0.70), (0.45, 0.76)], 0.014, Material.FOLD)
        sketch.line([(0.89, 0.70), (0.55, 0.76)], 0.014, Material.FOLD)
