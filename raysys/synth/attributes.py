"""The possible values of the latent attributes: kind, style, colour, pattern, and the sellers' backdrops.

The model sees none of them. Only `category` is in the public catalogue; kind, colour, pattern and style
define which items are similar, for simulated logs and tests.
"""

from dataclasses import dataclass

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Kind:
    """The properties of a kind: its category, its shape variants and its typical price."""

    category: str
    styles: tuple[str, ...]
    price_yen: int


KINDS: dict[str, Kind] = {
    "t-shirt": Kind("fashion/tops", ("short sleeve", "long sleeve", "v-neck"), 1800),
    "hoodie": Kind("fashion/tops", ("pullover", "zip"), 3800),
    "dress": Kind("fashion/dresses", ("strap", "sleeved", "maxi"), 4200),
    "skirt": Kind("fashion/dresses", ("flared", "pencil", "pleated"), 2600),
    "trousers": Kind("fashion/bottoms", ("straight", "wide", "skinny"), 3200),
    "shorts": Kind("fashion/bottoms", ("casual", "sport"), 1900),
    "sneaker": Kind("fashion/shoes", ("low", "high-top", "slip-on"), 5200),
    "boot": Kind("fashion/shoes", ("ankle", "knee", "lace-up"), 6800),
    "heel": Kind("fashion/shoes", ("stiletto", "block", "strap"), 4600),
    "hat": Kind("fashion/accessories", ("fedora", "bucket", "sun"), 2400),
    "cap": Kind("fashion/accessories", ("curved", "flat", "trucker"), 1700),
    "watch": Kind("fashion/accessories", ("round", "square", "diver"), 8900),
    "sunglasses": Kind("fashion/accessories", ("round", "aviator", "square"), 2900),
    "scarf": Kind("fashion/accessories", ("loop", "folded", "long"), 2100),
    "handbag": Kind("fashion/bags", ("flap", "box", "bucket"), 7400),
    "backpack": Kind("fashion/bags", ("school", "roll-top", "round"), 5400),
    "tote": Kind("fashion/bags", ("tall", "wide", "slouchy"), 2200),
    "mug": Kind("home/kitchen", ("straight", "tapered", "round"), 900),
    "teapot": Kind("home/kitchen", ("round", "tall", "side-handle"), 2700),
    "lamp": Kind("home/furniture", ("table", "floor", "desk"), 4400),
    "chair": Kind("home/furniture", ("slat", "solid", "arm"), 6200),
    "guitar": Kind("hobby", ("acoustic", "electric", "ukulele"), 14800),
    "camera": Kind("hobby", ("compact", "slr", "instant"), 12800),
    "toy car": Kind("hobby", ("sedan", "truck", "bus"), 1200),
}

# Far enough apart that a mild colour cast never turns one named colour into another.
COLOURS: dict[str, Rgb] = {
    "black": (40, 40, 44),
    "white": (240, 238, 232),
    "grey": (138, 140, 144),
    "red": (204, 38, 40),
    "pink": (244, 150, 182),
    "orange": (242, 128, 28),
    "yellow": (246, 210, 52),
    "green": (48, 142, 74),
    "sky blue": (104, 182, 232),
    "navy": (34, 50, 118),
    "purple": (130, 70, 168),
    "brown": (116, 72, 42),
}

# The second colour of a pattern. It contrasts in lightness, so that the pattern is visible at 64 px, and is
# mostly neutral, so that people would still name the first colour.
ACCENTS: dict[str, tuple[str, ...]] = {
    "black": ("white", "white", "grey", "red"),
    "white": ("navy", "black", "red", "sky blue"),
    "grey": ("white", "black", "yellow"),
    "red": ("white", "white", "black"),
    "pink": ("white", "white", "brown"),
    "orange": ("white", "white", "brown"),
    "yellow": ("white", "brown", "black"),
    "green": ("white", "white", "yellow"),
    "sky blue": ("white", "white", "navy"),
    "navy": ("white", "white", "yellow"),
    "purple": ("white", "white", "yellow"),
    "brown": ("white", "white", "orange"),
}

PATTERNS = ("plain", "stripes", "checks", "dots", "floral", "gradient", "two-tone", "logo")
# Plain is the most frequent; the others are equally frequent.
PATTERN_WEIGHTS = (0.23, 0.11, 0.11, 0.11, 0.11, 0.11, 0.11, 0.11)

BACKDROPS = ("wood", "sheet", "wall", "grass", "tiles", "bed", "tatami", "carpet")
