"""What a model should not forget: drawn pairs that stay the same, or those of a ShardSet."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.config.schema import RobustConfig
from raysys.encoder.siglip import load_model
from raysys.errors import MissingError
from raysys.synth import generate_items
from raysys.train.validation.retention import make_retention_check, retention_pairs
from tests.factories import tiny_bundle
from tests.shards_by_hand import photo, write_shard_set


def test_drawn_pairs_are_the_same_ones_again_and_nobodys_catalogue() -> None:
    photos, titles = retention_pairs("drawn", 6)
    retention_pairs.cache_clear()
    assert retention_pairs("drawn", 6) == (photos, titles)
    assert len(photos) == len(titles) == 6
    assert titles != [item.title for item in generate_items(6, seed=7)]


def test_the_first_pairs_of_a_shard_set_are_the_guard(tmp_path: Path) -> None:
    write_shard_set(tmp_path, ["first", "second"], ["third"])
    assert retention_pairs(str(tmp_path), 2) == ([photo()] * 2, ["a cup"] * 2)
    assert len(retention_pairs(str(tmp_path), 9)[1]) == 3


def test_a_guard_that_is_not_there_is_missed_at_once(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no ShardSet here"):
        make_retention_check("", RobustConfig(guard=str(tmp_path / "nothing")))


def test_the_figure_is_recall_among_the_first_five(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = [f"red cup {n}" for n in range(10)]
    bundle = tiny_bundle(tmp_path, titles)
    monkeypatch.setattr(
        "raysys.train.validation.retention.retention_pairs",
        lambda source, num_items: ([photo()] * 10, titles),
    )
    # Equal photos find the same five of ten titles.
    assert make_retention_check(bundle, RobustConfig()).measure(load_model(bundle)) == 0.5
