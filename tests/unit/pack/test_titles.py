"""Stored titles hold visible characters only, in one composed form."""

from __future__ import annotations

import random
import sys

import pytest

from raysys.encoder.text import TextPreprocessing, normalise_title
from raysys.pack.titles import clean_title


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("  red \n\t dress\u3000long ", "red dress long"),
        ("ＲＥＤ ﾊﾞｯｸﾞ", "RED バッグ"),
        ("cafe\u0301", "caf\u00e9"),
        ("cafe\u200b\u0301", "caf\u00e9"),  # the two parts compose once the character between is removed
        ("hand\u00adbag", "handbag"),  # soft hyphen
        ("re\u200bd\ufeff dr\u2060ess\u200e", "red dress"),  # zero-width space, BOM, joiner, direction mark
        ("red\x00\x07 dress\x7f", "red dress"),
        ("red\x1fdress", "red dress"),  # the unit separator of old tables separates words
        ("red \ud83d dress", "red dress"),  # unpaired surrogate
        ("می\u200cخواهم", "میخواهم"),  # zero-width non-joiner
        ("\u200b\u00ad \ufeff", ""),
        ("", ""),
    ],
)
def test_title_is_composed_and_visible(title: str, expected: str) -> None:
    assert clean_title(title) == expected


def test_joiner_stays_between_emoji_only() -> None:
    cook, heart = "\U0001f469\u200d\U0001f373", "\u2764\ufe0f\u200d\U0001f525"
    assert clean_title(f"{cook} apron {heart}") == f"{cook} apron {heart}"
    assert clean_title("\u200d\U0001f469\u200d apron\u200ds") == "\U0001f469 aprons"


def test_clean_title_is_idempotent_and_unchanged_by_the_text_preprocessing() -> None:
    rng = random.Random(7)
    unusual = [chr(code) for code in range(sys.maxunicode + 1) if not chr(code).isprintable()]
    text = TextPreprocessing(max_length=8, lower_case=False)
    for _ in range(2000):
        letters = [
            chr(rng.randrange(0x3000)) if rng.random() < 0.5 else rng.choice(unusual) for _ in range(12)
        ]
        cleaned = clean_title("".join(letters))
        assert clean_title(cleaned) == cleaned
        assert normalise_title(cleaned, text) == cleaned
        cleaned.encode()
