"""The pairs of the retention check are drawn, always the same, or come from a ShardSet."""

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


def test_drawn_pairs_are_reproducible_and_differ_from_catalogues() -> None:
    photos, titles = retention_pairs("drawn", 6)
    retention_pairs.cache_clear()
    assert retention_pairs("drawn", 6) == (photos, titles)
    assert len(photos) == len(titles) == 6
    assert titles != [item.title for item in generate_items(6, seed=7)]


def test_shard_set_gives_its_first_pairs(tmp_path: Path) -> None:
    write_shard_set(tmp_path, ["first", "second"], ["third"])
    assert retention_pairs(str(tmp_path), 2) == ([photo()] * 2, ["a cup"] * 2)
    assert len(retention_pairs(str(tmp_path), 9)[1]) == 3


def test_missing_shard_set_is_reported_before_training(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no ShardSet here"):
        make_retention_check("", RobustConfig(retention_set=str(tmp_path / "nothing")))


def test_metric_is_recall_at_5(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    titles = [f"red cup {n}" for n in range(10)]
    bundle = tiny_bundle(tmp_path, titles)
    monkeypatch.setattr(
        "raysys.train.validation.retention.retention_pairs",
        lambda source, num_items: ([photo()] * 10, titles),
    )
    # Equal photos retrieve the same five of ten titles.
    assert make_retention_check(bundle, RobustConfig()).measure(load_model(bundle)) == 0.5
