"""Generate titles like those of real sellers: two languages, any word order, noise, full width, typos.

Titles are informative but not reliable: about 98 % name the kind, 85 % the colour, 70 % the pattern.
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
# From ASCII "!" to "~" to their full-width forms, at an offset of 0xFEE0.
_FULL_WIDTH = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}


def write_title(
    kind: str, colour: str, pattern: str, category: str, seller: Seller, rng: np.random.Generator
) -> str:
    """A title in the style of the seller."""
    core = _core_words(kind, colour, pattern, category, seller, rng)
    before, after = _noise(category, seller, rng)
    words = _with_typo(before + core + after, rng)
    title = " ".join(words)
    if seller.likes_emoji and rng.random() < 0.5:
        title += _pick(EMOJI, rng)
    return title


def retitle(title: str, rng: np.random.Generator) -> str:
    """The title of a re-listing: unchanged, or with a prefix that marks it as re-listed."""
    if rng.random() < 0.5:
        return title
    return _pick(("値下げ ", "再出品 ", "RELIST ", "【最終】"), rng) + title


def _core_words(
    kind: str, colour: str, pattern: str, category: str, seller: Seller, rng: np.random.Generator
) -> list[str]:
    """Words for kind, colour and pattern, each with its probability; the kind is first or last."""
    names_kind = rng.random() < _KIND_SHARE
    kind_words = KIND_WORDS[kind] if names_kind else GENERAL_WORDS[category.split("/")[0]]
    kind_word = _choose_word(kind_words, seller, rng)
    appearance = []
    colour_draw = rng.random()
    if colour_draw < _COLOUR_SHARE:
        appearance.append(_choose_word(COLOUR_WORDS[colour], seller, rng))
    elif colour_draw < _COLOUR_SHARE + _VAGUE_COLOUR_SHARE:
        appearance.append(_choose_word(VAGUE_COLOURS, seller, rng))
    if rng.random() < _PATTERN_SHARE:
        appearance.append(_choose_word(PATTERN_WORDS[pattern], seller, rng))
    if rng.random() < 0.3:
        appearance.reverse()
    kind_is_first = seller.puts_kind_first != (rng.random() < 0.2)
    return [kind_word, *appearance] if kind_is_first else [*appearance, kind_word]


def _noise(category: str, seller: Seller, rng: np.random.Generator) -> tuple[list[str], list[str]]:
    """Words before and after the core words: brand, size, sales phrases."""
    before, after = [], []
    if rng.random() < _BRAND_SHARE:
        latin, katakana = BRANDS[int(rng.integers(len(BRANDS)))]
        before.append(_choose_word(Words((latin,), (katakana,)), seller, rng))
    if rng.random() < _SIZE_SHARE:
        after.append(_size(category, seller, rng))
    for _ in range(seller.num_noise_words):
        if rng.random() < 0.6:
            word = _choose_word_in_one_language(NOISE_WORDS, seller, rng)
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


def _choose_word(words: Words, seller: Seller, rng: np.random.Generator) -> str:
    """A word in the language of the seller; sellers with both languages sometimes use both words."""
    if seller.language == "both" and rng.random() < 0.25:
        return f"{_pick(words.en, rng)} {_pick(words.ja, rng)}"
    return _choose_word_in_one_language(words, seller, rng)


def _choose_word_in_one_language(words: Words, seller: Seller, rng: np.random.Generator) -> str:
    is_english = rng.random() < {"en": 1.0, "ja": 0.0, "both": 0.5}[seller.language]
    return _pick(words.en if is_english else words.ja, rng)


def _with_typo(words: list[str], rng: np.random.Generator) -> list[str]:
    """The words; in 4 % of the titles, two adjacent letters of one longer Latin word may be swapped."""
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
