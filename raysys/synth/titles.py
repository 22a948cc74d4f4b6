"""Titles as people type them: two languages, any order, noise, full width, typos.

Shares are fixed so that title-photo pairs teach kind, colour and pattern and yet no title
can be trusted: about 98 % name the kind, 85 % the colour, 70 % the pattern.
"""

import numpy as np

from raysys.synth.sellers import Seller
from raysys.synth.words import (
    BRANDS,
    COLOUR_WORDS,
    EMOJI,
    GENERAL_WORDS,
    KIND_WORDS,
    NOISE_WORDS,
    PATTERN_WORDS,
    VAGUE_COLOURS,
    Words,
)

_KIND_SHARE = 0.98
_COLOUR_SHARE = 0.85
_VAGUE_COLOUR_SHARE = 0.07
_PATTERN_SHARE = 0.70
_BRAND_SHARE = 0.45
_SIZE_SHARE = 0.35
_TYPO_SHARE = 0.04
# ASCII "!" to "~" and their full-width forms, which lie 0xFEE0 further on.
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def write_title(
    kind: str, colour: str, pattern: str, category: str, seller: Seller, rng: np.random.Generator
) -> str:
    """One title in the seller's habits."""
    core = _core_words(kind, colour, pattern, category, seller, rng)
    before, after = _noise(category, seller, rng)
    words = _with_typo(before + core + after, rng)
    title = " ".join(words)
    if seller.likes_emoji and rng.random() < 0.5:
        title += _pick(EMOJI, rng)
    return title


def retitle(title: str, rng: np.random.Generator) -> str:
    """The title of a re-listing: as it was, or with a word to say that it is back."""
    if rng.random() < 0.5:
        return title
    return _pick(("値下げ ", "再出品 ", "RELIST ", "【最終】"), rng) + title


def _core_words(
    kind: str, colour: str, pattern: str, category: str, seller: Seller, rng: np.random.Generator
) -> list[str]:
    """Kind, colour and pattern, each as often as its share; either kind first or last."""
    names_kind = rng.random() < _KIND_SHARE
    kind_word = _say(KIND_WORDS[kind] if names_kind else GENERAL_WORDS[category.split("/")[0]], seller, rng)
    looks = []
    fate = rng.random()
    if fate < _COLOUR_SHARE:
        looks.append(_say(COLOUR_WORDS[colour], seller, rng))
    elif fate < _COLOUR_SHARE + _VAGUE_COLOUR_SHARE:
        looks.append(_say(VAGUE_COLOURS, seller, rng))
    if rng.random() < _PATTERN_SHARE:
        looks.append(_say(PATTERN_WORDS[pattern], seller, rng))
    if rng.random() < 0.3:
        looks.reverse()
    kind_is_first = seller.puts_kind_first != (rng.random() < 0.2)
    return [kind_word, *looks] if kind_is_first else [*looks, kind_word]


def _noise(category: str, seller: Seller, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """What stands before and after the words that matter."""
    before, after = [], []
    if rng.random() < _BRAND_SHARE:
        latin, katakana = BRANDS[int(rng.integers(len(BRANDS)))]
        before.append(_say(Words((latin,), (katakana,)), seller, rng))
    if rng.random() < _SIZE_SHARE:
        after.append(_size(category, seller, rng))
    for _ in range(seller.num_noise_words):
        if rng.random() < 0.6:
            word = _say_once(NOISE_WORDS, seller, rng)
            side = before if rng.random() < 0.4 else after
            side.append(word.translate(_FULL_WIDTH) if seller.types_full_width else word)
    return before, after


def _size(category: str, seller: Seller, rng: np.random.Generator) -> str:
    if category == "fashion/shoes":
        size = f"{rng.integers(44, 57) / 2:g}cm"
    elif category.startswith("fashion"):
        letter = _pick(("S", "M", "L", "XL"), rng)
        size = f"{letter}サイズ" if seller.language == "ja" else f"size {letter}"
    else:
        size = f"{int(rng.integers(8, 60))}cm"
    return size.translate(_FULL_WIDTH) if seller.types_full_width else size


def _say(words: Words, seller: Seller, rng: np.random.Generator) -> str:
    """A word in the seller's language; who writes both sometimes says it twice."""
    if seller.language == "both" and rng.random() < 0.25:
        return f"{_pick(words.en, rng)} {_pick(words.ja, rng)}"
    return _say_once(words, seller, rng)


def _say_once(words: Words, seller: Seller, rng: np.random.Generator) -> str:
    is_english = rng.random() < {"en": 1.0, "ja": 0.0, "both": 0.5}[seller.language]
    return _pick(words.en if is_english else words.ja, rng)


def _with_typo(words: list[str], rng: np.random.Generator) -> list[str]:
    """Now and then two neighbouring letters of one longer Latin word change places."""
    if rng.random() >= _TYPO_SHARE:
        return words
    at = int(rng.integers(len(words)))
    word = words[at]
    if not (word.isascii() and len(word) >= 5):
        return words
    cut = int(rng.integers(1, len(word) - 2))
    swapped = word[:cut] + word[cut + 1] + word[cut] + word[cut + 2 :]
    return [*words[:at], swapped, *words[at + 1 :]]


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
