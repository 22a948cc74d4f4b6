"""Who sells: some 120 people, a few of them with hundreds of items and most with a handful.

A seller is one place to take photos and one way to write titles. Both are nuisance for a
search by looks, and both are what a lazy model latches on to: neighbours that share only
the seller's floor are the failure this catalogue is meant to show.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from raysys.synth.attributes import BACKDROPS

NUM_SELLERS = 120
_SELLER_STREAM = 1_000_003  # keeps a seller's draws apart from those of the item of that index


@dataclass(frozen=True)
class Seller:
    """One seller's habits; `seed` fixes the tint and grain of the place they shoot in."""

    name: str
    seed: int
    backdrop: str
    language: Literal["en", "ja", "both"]
    num_noise_words: int
    likes_emoji: bool
    types_full_width: bool
    puts_kind_first: bool


def generate_sellers(seed: int) -> list[Seller]:
    """All sellers of a catalogue, the largest first."""
    return [_generate_seller(seed, number) for number in range(NUM_SELLERS)]


def seller_shares() -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Cumulative share of the items by seller number, last value 1.

    Zipf-like with exponent 0.8: the first seller holds about 7 %, half of them under 0.5 %.
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
