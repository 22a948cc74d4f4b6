"""Titles as they are stored: composed Unicode, visible characters only, on one line.

Invisible characters (soft hyphens, zero-width spaces, direction marks, unpaired surrogates) make equal titles
differ and change their tokens.
"""

from __future__ import annotations

import unicodedata

# Control characters, format characters (with the zero-width ones), unpaired surrogates.
_INVISIBLE_CATEGORIES = ("Cc", "Cf", "Cs")
_ZERO_WIDTH_JOINER = "\u200d"
_EMOJI_CATEGORIES = ("So", "Sk")  # emoji, and the skin tone modifiers that follow them
_EMOJI_VARIATION_SELECTOR = "\ufe0f"


def clean_title(title: str) -> str:
    """NFKC without invisible characters, white space collapsed to single spaces and stripped; "" if empty.

    A zero-width joiner between two emoji stays, because it combines them into one. The function is
    idempotent, and `normalise_title` changes nothing but the case of its result.
    """
    text = unicodedata.normalize("NFKC", title)
    if not text.isprintable():
        visible = (_visible(text, position) for position in range(len(text)))
        # Characters on both sides of a removed one may compose now.
        text = unicodedata.normalize("NFKC", "".join(visible))
    return " ".join(text.split())


def _visible(text: str, position: int) -> str:
    character = text[position]
    if character.isspace():
        return " "  # before the category test: a line feed is a control character, but separates words
    if character == _ZERO_WIDTH_JOINER:
        is_between_emoji = _is_emoji(text[position - 1 : position]) and _is_emoji(
            text[position + 1 : position + 2]
        )
        return character if is_between_emoji else ""
    return "" if unicodedata.category(character) in _INVISIBLE_CATEGORIES else character


def _is_emoji(character: str) -> bool:
    return character == _EMOJI_VARIATION_SELECTOR or (
        character != "" and unicodedata.category(character) in _EMOJI_CATEGORIES
    )
