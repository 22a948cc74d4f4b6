"""Generate the items of the catalogue from a seed: latent attributes, seller, title and price.

Item i depends only on the seed and on the items before it, so a catalogue of 3,000 items begins with the
catalogue of 300 items of the same seed.
"""

from dataclasses import dataclass, replace
from datetime import date, timedelta

import numpy as np

from raysys.synth.attributes import COLOURS, KINDS, PATTERN_WEIGHTS, PATTERNS
from raysys.synth.sellers import Seller, generate_sellers, seller_shares
from raysys.synth.titles import retitle, write_title

RELISTED_SHARE = 0.04
_FIRST_DAY = date(2024, 1, 1)
_PATTERN_SHARES = np.cumsum(PATTERN_WEIGHTS)


@dataclass(frozen=True)
class DrawnItem:
    """An item of the catalogue. The model never sees `kind`, `colour`, `pattern` and `style`.

    A photo depends on four seeds: of the object (`object_seed`), of the seller's location (`location_seed`),
    of the shot (`shot_seed`) and of the crop (`crop_seed`, 0 for the full frame). A re-listing has the same
    object and location, and the same shot if it reuses the old photo.
    """

    item_id: str
    title: str
    seller: str
    price: int
    kind: str
    colour: str
    pattern: str
    style: str
    category: str
    relisted_from: str | None
    listed_at: str
    backdrop: str
    object_seed: int
    location_seed: int
    shot_seed: int
    crop_seed: int


def generate_items(num_items: int, seed: int) -> list[DrawnItem]:
    """The first `num_items` items of the infinite catalogue of `seed`, in the order of generation."""
    sellers = generate_sellers(seed)
    shares = seller_shares()
    items: list[DrawnItem] = []
    for index in range(num_items):
        rng = np.random.default_rng([seed, index])
        item_id = _item_id(seed, index)
        if items and rng.random() < RELISTED_SHARE:
            source = items[int(rng.integers(len(items)))]
            items.append(_relist(source, item_id, rng))
        else:
            seller = sellers[int(np.searchsorted(shares, rng.random()))]
            items.append(_new_item(item_id, seller, rng))
    return items


def _new_item(item_id: str, seller: Seller, rng: np.random.Generator) -> DrawnItem:
    name = _pick(tuple(KINDS), rng)
    kind = KINDS[name]
    style, colour = _pick(kind.styles, rng), _pick(tuple(COLOURS), rng)
    pattern = PATTERNS[int(np.searchsorted(_PATTERN_SHARES, rng.random()))]
    return DrawnItem(
        item_id=item_id,
        title=write_title(name, colour, pattern, kind.category, seller, rng),
        seller=seller.name,
        price=_price_yen(kind.price_yen, rng),
        kind=name,
        colour=colour,
        pattern=pattern,
        style=style,
        category=kind.category,
        relisted_from=None,
        listed_at=(_FIRST_DAY + timedelta(days=int(rng.integers(330)))).isoformat(),
        backdrop=seller.backdrop,
        object_seed=_new_seed(rng),
        location_seed=seller.seed,
        shot_seed=_new_seed(rng),
        crop_seed=0,
    )


def _relist(source: DrawnItem, item_id: str, rng: np.random.Generator) -> DrawnItem:
    """The same object, listed again days to weeks later, cheaper, with the old photo or a new one."""
    is_old_photo = rng.random() < 0.5
    listed_at = date.fromisoformat(source.listed_at) + timedelta(days=int(rng.integers(3, 35)))
    return replace(
        source,
        item_id=item_id,
        title=retitle(source.title, rng),
        price=max(300, int(source.price * rng.uniform(0.8, 1.0)) // 10 * 10),
        relisted_from=source.item_id,
        listed_at=listed_at.isoformat(),
        shot_seed=source.shot_seed if is_old_photo else _new_seed(rng),
        crop_seed=_new_seed(rng) if is_old_photo else 0,
    )


def _item_id(seed: int, index: int) -> str:
    """An id that is unique among the first 10^8 items; the order of ids is unrelated to the index.

    The step is coprime to 10^8, so index -> id is a permutation of the eight-digit numbers.
    """
    return f"d{(index * 61_803_399 + seed * 7_919 + 31_415_926) % 10**8:08d}"


def _price_yen(typical: int, rng: np.random.Generator) -> int:
    rounded = int(typical * np.exp(rng.normal(0, 0.45)) / 100) * 100
    return max(300, rounded - (20 if rng.random() < 0.4 else 0))


def _new_seed(rng: np.random.Generator) -> int:
    return int(rng.integers(1, 2**31))


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
