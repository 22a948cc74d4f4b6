"""A title as it is stored: composed, visible, on one line.

What a shop's form lets through (soft hyphens, zero-width blanks, direction marks, half a surrogate) is
seen by nobody but makes two equal titles different, and other tokens.
"""

from __future__ import annotations

import unicodedata

# Control characters, format characters (zero-width ones among them), halves of a surrogate pair.
_UNSEEN = ("Cc", "Cf", "Cs")
_JOINER = "\u200d"
_SIGNS = ("So", "Sk")  # emoji, and the skin tones behind them
_EMOJI_STYLE = "\ufe0f"


def clean_title(title: str) -> str:
    """NFKC without unseen characters, every run of white space one blank, none at the ends; "" if empty.

    The one unseen character that stays is a joiner between two emoji, because it makes one sign of them.
    What comes out does not change when it is cleaned again, nor (but for case) in `normalise_title`.
    """
    text = unicodedata.normalize("NFKC", title)
    if not text.isprintable():
        kept = (_visible(text, place) for place in range(len(text)))
        # What stood on both sides of a removed character may now compose.
        text = unicodedata.normalize("NFKC", "".join(kept))
    return " ".join(text.split())


def _visible(text: str, place: int) -> str:
    character = text[place]
    if character.isspace():
        return " "  # a line feed is a control character, too, but parts two words
    if character == _JOINER:
        return (
            character if _is_sign(text[place - 1 : place]) and _is_sign(text[place + 1 : place + 2]) else ""
        )
    return "" if unicodedata.category(character) in _UNSEEN else character


def _is_sign(character: str) -> bool:
    return character == _EMOJI_STYLE or (character != "" and unicodedata.category(character) in _SIGNS)
