"""Rows go to splits by column or group, and to shards that are cut to size."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from raysys.config.schema import SPLITS, PackConfig
from raysys.errors import InputError
from tests.unit.pack.small_catalogue import (
    BY_COLUMN,
    jpeg,
    numbered_rows,
    pack,
    samples_by_key,
    write_catalogue,
)


def test_column_decides_the_split(tmp_path: Path) -> None:
    parts = {"a": "train", "b": "val", "c": "test", "d": "train"}
    rows = [{"item_id": item_id, "part": part} for item_id, part in parts.items()]
    config = write_catalogue(tmp_path, rows)
    manifests = pack(config)
    assert {split: manifests[split].num_items for split in SPLITS} == {"train": 2, "val": 1, "test": 1}
    keys = {split: sorted(samples_by_key(config, split)) for split in SPLITS}
    assert keys == {"train": ["a", "d"], "val": ["b"], "test": ["c"]}


def test_unknown_split_in_the_column_names_the_row(tmp_path: Path) -> None:
    config = write_catalogue(tmp_path, [{"item_id": "a"}, {"item_id": "b", "part": "dev"}])
    with pytest.raises(
        InputError, match="column 'part' should be one of train, val, test, got 'dev'"
    ) as caught:
        pack(config)
    assert str(caught.value).startswith(f"{tmp_path}/items.csv:3: ")


def test_shards_are_cut_by_size_in_bytes(tmp_path: Path) -> None:
    noise = Image.effect_noise((800, 800), 90).convert("RGB")
    config = write_catalogue(tmp_path, numbered_rows(5), PackConfig(split=BY_COLUMN, shard_megabytes=1))
    noise.save(tmp_path / "red.jpg", "JPEG", quality=85)
    size = (tmp_path / "red.jpg").stat().st_size
    assert 2**20 / 3 < size < 2**20 / 2  # two of them are less than a mebibyte, three are more
    assert [shard.num_items for shard in pack(config)["train"].shards] == [2, 2, 1]


def test_group_stays_in_one_split_and_groups_in_two_splits_are_counted(tmp_path: Path) -> None:
    colours = [f"#{n:02x}{255 - n:02x}80" for n in range(0, 250, 10)]
    rows = [
        {
            "item_id": f"i{n:02d}",
            "title": f"cup {n}",
            "image": f"{n % 25}.jpg",
            "part": "val" if n > 40 else "train",
        }
        for n in range(50)
    ]  # i00 has the photo of i25, and so on
    by_group = PackConfig.model_validate(
        {"split": {"kind": "group", "val_fraction": 0.3, "test_fraction": 0.3}}
    )
    config = write_catalogue(tmp_path, rows, by_group)
    for n, colour in enumerate(colours):
        (tmp_path / f"{n}.jpg").write_bytes(jpeg(colour))
    manifests = pack(config)
    split_of = {key: split for split in SPLITS for key in samples_by_key(config, split)}
    assert len(split_of) == 50
    assert set(split_of.values()) == set(SPLITS)
    assert all(split_of[f"i{n:02d}"] == split_of[f"i{n + 25:02d}"] for n in range(25))
    assert manifests["train"].num_split_groups == 0
    by_column = config.model_copy(update={"pack": PackConfig(split=BY_COLUMN)})
    assert pack(by_column)["val"].num_split_groups == 9  # i41 to i49 share photos with rows in train
