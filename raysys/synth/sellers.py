"""The 120 sellers: some have hundreds of items, most have few.

A seller has one location for photos and one style of titles. Both are irrelevant for visual similarity, and
both are shortcuts that a model may learn: neighbours that share only the backdrop are the failure that this
catalogue makes visible.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from raysys.synth.attributes import BACKDROPS

NUM_SELLERS = 120
_SELLER_STREAM = 1_000_003  # separates the random numbers of seller i from those of item i


@dataclass(frozen=True)
class Seller:
    """The properties of a seller; `seed` determines tint and texture of the backdrop."""

    name: str
    seed: int
    backdrop: str
    language: Literal["en", "ja", "both"]
    num_noise_words: int
    likes_emoji: bool
    types_full_width: bool
    puts_kind_first: bool


def generate_sellers(seed: int) -> list[Seller]:
    """All sellers of a catalogue, in descending order of expected size."""
    return [_generate_seller(seed, number) for number in range(NUM_SELLERS)]


def seller_shares() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Cumulative share of the items by seller number, last value 1.

    Zipf-like with exponent 0.8: the first seller has about 7 %, half of the sellers have under 0.5 % each.
    """
    sizes = (np.arange(NUM_SELLERS) + 2.0) ** -0.8
    return np.cumsum(sizes / sizes.sum())


def _generate_seller(seed: int, number: int) -> Seller:
    rng = np.random.default_rng([seed, _SELLER_STREAM, number])
    languages: tuple[Literal["en", "ja", "both"], ...] = ("en", "ja", "both")
    return Seller(
        name=f"s{number:03d}",
        seed=int(rng.integers(2**31)),
        backdrop=BACKDROPS[int(rng.integers(len(BACKDROPS)))],
        language=languages[int(rng.integers(3))],
        num_noise_words=int(rng.integers(0, 4)),
        likes_emoji=bool(rng.random() < 0.15),
        types_full_width=bool(rng.random() < 0.12),
        puts_kind_first=bool(rng.random() < 0.4),
    )
