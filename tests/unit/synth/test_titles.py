"""Titles: how often they name the latent attributes, and in which language."""

import unicodedata

import numpy as np
import pytest

from raysys.synth import COLOURS, KINDS, PATTERNS, DrawnItem, generate_items
from raysys.synth.titles import retitle
from raysys.synth.words import COLOUR_WORDS, KIND_WORDS, PATTERN_WORDS, Words


@pytest.fixture(scope="module")
def items() -> list[DrawnItem]:
    return [item for item in generate_items(2000, seed=7) if item.relisted_from is None]


def has_any(item: DrawnItem, words: Words) -> bool:
    title = unicodedata.normalize("NFKC", item.title).casefold()
    return any(word.casefold() in title for word in words.en + words.ja)


def has_kana_or_kanji(title: str) -> bool:
    return any("\u3040" <= letter <= "\u9fff" for letter in title)


def test_every_latent_value_has_words_in_both_languages() -> None:
    for values, words in ((KINDS, KIND_WORDS), (COLOURS, COLOUR_WORDS), (PATTERNS, PATTERN_WORDS)):
        assert set(values) == set(words)
        assert all(each.en and each.ja for each in words.values())


def test_nearly_every_title_names_the_kind(items: list[DrawnItem]) -> None:
    assert 0.95 <= np.mean([has_any(item, KIND_WORDS[item.kind]) for item in items]) < 1


def test_most_titles_name_the_colour(items: list[DrawnItem]) -> None:
    share = np.mean([has_any(item, COLOUR_WORDS[item.colour]) for item in items])
    assert share == pytest.approx(0.85, abs=0.03)


def test_many_titles_name_the_pattern(items: list[DrawnItem]) -> None:
    share = np.mean([has_any(item, PATTERN_WORDS[item.pattern]) for item in items])
    assert share == pytest.approx(0.70, abs=0.04)


def test_titles_mix_english_and_japanese(items: list[DrawnItem]) -> None:
    has_japanese = np.array([has_kana_or_kanji(item.title) for item in items])
    has_latin = np.array([any(letter.isascii() and letter.isalpha() for letter in i.title) for i in items])
    assert 0.4 < has_japanese.mean() < 0.8
    assert (has_japanese & ~has_latin).mean() > 0.1
    assert (~has_japanese & has_latin).mean() > 0.1
    assert (has_japanese & has_latin).mean() > 0.1


def test_some_titles_use_full_width_letters_and_emoji(items: list[DrawnItem]) -> None:
    full_width = np.mean([any("\uff01" <= letter <= "\uff5e" for letter in i.title) for i in items])
    emoji = np.mean([any(mark in i.title for mark in "✨🎁💕🌸‼") for i in items])
    assert 0.01 < full_width < 0.2
    assert 0.01 < emoji < 0.15


def test_one_kind_has_several_names(items: list[DrawnItem]) -> None:
    titles = " ".join(item.title for item in items if item.kind == "sneaker")
    assert all(word in titles for word in ("sneakers", "trainers", "スニーカー"))


def test_titles_are_one_line_of_at_most_120_characters(items: list[DrawnItem]) -> None:
    assert all(
        0 < len(item.title) <= 120 and item.title.isprintable()
        for item in items
        if "\ufe0f" not in item.title
    )
    assert not any("\n" in item.title for item in items)


def test_title_of_a_relisting_contains_the_original() -> None:
    rng = np.random.default_rng(0)
    titles = {retitle("赤 マグカップ", rng) for _ in range(40)}
    assert "赤 マグカップ" in titles
    assert len(titles) == 5
    assert all(title.endswith("赤 マグカップ") for title in titles)
