"""A stored title shows every character it has, and is the same however it was typed."""

from __future__ import annotations

import random
import sys

import pytest

from raysys.encoder.text import TextPreprocessing, normalise_title
from raysys.pack.titles import clean_title


@pytest.mark.parametrize(
    ("title", "wanted"),
    [
        ("  red \n\t dress\u3000long ", "red dress long"),
        ("ＲＥＤ ﾊﾞｯｸﾞ", "RED バッグ"),
        ("cafe\u0301", "caf\u00e9"),
        ("cafe\u200b\u0301", "caf\u00e9"),  # what a removed character kept apart composes
        ("hand\u00adbag", "handbag"),  # soft hyphen
        ("re\u200bd\ufeff dr\u2060ess\u200e", "red dress"),  # zero-width blank, BOM, joiner, direction
        ("red\x00\x07 dress\x7f", "red dress"),
        ("red\x1fdress", "red dress"),  # a separator of old tables parts words
        ("red \ud83d dress", "red dress"),  # half a surrogate pair
        ("می\u200cخواهم", "میخواهم"),  # a non-joiner is removed
        ("\u200b\u00ad \ufeff", ""),
        ("", ""),
    ],
)
def test_title_is_composed_and_visible(title: str, wanted: str) -> None:
    assert clean_title(title) == wanted


def test_emoji_that_a_joiner_makes_one_stay_one() -> None:
    cook, heart = "\U0001f469\u200d\U0001f373", "\u2764\ufe0f\u200d\U0001f525"
    assert clean_title(f"{cook} apron {heart}") == f"{cook} apron {heart}"
    assert clean_title("\u200d\U0001f469\u200d apron\u200ds") == "\U0001f469 aprons"


def test_clean_title_stays_as_it_is_here_and_before_the_tokenizer() -> None:
    draw = random.Random(7)
    unusual = [chr(code) for code in range(sys.maxunicode + 1) if not chr(code).isprintable()]
    how = TextPreprocessing(max_length=8, lower_case=False)
    for _ in range(2000):
        letters = [
            chr(draw.randrange(0x3000)) if draw.random() < 0.5 else draw.choice(unusual) for _ in range(12)
        ]
        cleaned = clean_title("".join(letters))
        assert clean_title(cleaned) == cleaned
        assert normalise_title(cleaned, how) == cleaned
        cleaned.encode()
