"""What `raysys embed` refuses before it starts Ray: splits without items, repeated ids, a PCA of too few items."""

import re
from pathlib import Path

import pytest

from raysys import artifacts, pipeline
from raysys.artifacts import ArtifactSpec, ShardEntry, ShardSetManifest, specs
from raysys.config import Config
from raysys.errors import DamagedData, InputError
from raysys.shards.reader import Item
from tests.factories import photo, tiny_bundle, write_shard


def publish_shards(uri: str, split: str, num_items: int, *, prefix: str | None = None) -> None:
    """A ShardSet of one tar; without items, of none. The ids are `prefix` (the split) with a number."""
    spec = ArtifactSpec(uri, ShardSetManifest, {}, {})
    artifacts.begin(spec)
    entries = []
    if num_items:
        items = [Item(f"{prefix or split}{number}", "red cup", photo()) for number in range(num_items)]
        shard = write_shard(uri, items, split=split)
        entries = [
            ShardEntry(
                name="00000.tar", num_items=num_items, bytes=shard.num_bytes, sha256=shard.sha256 or ""
            )
        ]
    fields = artifacts.common_fields(spec, artifacts.describe_files(uri), num_items, 0.0)
    counts = {"num_rows": num_items, "num_refused": 0, "refused_by_reason": {}}
    artifacts.publish(uri, ShardSetManifest(**fields, split=split, shards=entries, item_schema={}, **counts))


@pytest.mark.parametrize(
    ("num_items", "settings", "message"),
    [
        ((0, 0, 0), {}, "shards/train, .*shards/val, .*shards/test: no items; check the catalogue and pack.split"),
        ((3, 3, 0), {"embed": {"splits": ["test"]}, "projection": {"dimensions": None}}, "shards/test: no items; "),
        ((0, 3, 3), {}, "2 components .* the 0 items of the train split .*; set it to null$"),
        ((1, 3, 3), {}, "2 components .* the 1 items of the train split .*; set it to null$"),
        ((1, 3, 3), {"projection": {"dimensions": 1}}, "1 components .* the 1 items .*; set it to null$"),
        ((5, 3, 3), {"projection": {"dimensions": 6}}, "6 components .* the 5 items .*; set it to 5 or less, or to null$"),
        ((20, 1, 1), {"projection": {"dimensions": 17}}, "17 .* vectors of 16 dimensions; set it to 16 or less"),
        ((5, 3, 3), {"embed": {"splits": ["val"]}}, "fitted on the train split and embed.splits has val only; add train"),
    ],
)  # fmt: skip
def test_what_cannot_be_embedded_is_refused_in_one_line(
    tmp_path: Path, num_items: tuple[int, int, int], settings: dict[str, object], message: str
) -> None:
    config = Config.model_validate(
        {"root": str(tmp_path), "projection": {"dimensions": 2}, **settings, "train": {"method": "full"}}
    )
    layout = specs.layout_of(config)
    for split, num in zip(("train", "val", "test"), num_items, strict=True):
        publish_shards(layout.shards(split), split, num)
    tiny_bundle(Path(layout.encoder), ["red cup", "blue cup"])
    with pytest.raises(InputError) as caught:
        pipeline.run_stage("embed", config)
    assert re.search(message, str(caught.value))
    assert "\n" not in str(caught.value)


def test_repeated_item_ids_are_refused_before_ray_starts(tmp_path: Path) -> None:
    settings = {"root": str(tmp_path), "train": {"method": "full"}, "projection": {"dimensions": 2}}
    config = Config.model_validate(settings)
    layout = specs.layout_of(config)
    for split, prefix in (("train", "m"), ("val", "m"), ("test", "t")):
        publish_shards(layout.shards(split), split, 20, prefix=prefix)
    tiny_bundle(Path(layout.encoder), ["red cup", "blue cup"])
    with pytest.raises(DamagedData, match="20 item ids occur more than once .first 'm0' in ") as caught:
        pipeline.run_stage("embed", config)
    assert all(f"{layout.shards(split)}/00000.tar" in str(caught.value) for split in ("train", "val"))


def test_training_on_a_split_without_items_is_refused(tmp_path: Path) -> None:
    config = Config.model_validate({"root": str(tmp_path), "train": {"method": "full"}})
    for split in ("train", "val", "test"):
        publish_shards(specs.layout_of(config).shards(split), split, 0)
    with pytest.raises(InputError, match="shards/train: no items; check the catalogue and pack.split"):
        pipeline.run_stage("train", config)
