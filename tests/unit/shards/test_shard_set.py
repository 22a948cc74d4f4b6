"""A setting may only name attributes that the items of a ShardSet have."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from raysys.errors import InputError
from raysys.shards.shard_set import require_attributes
from tests.shards_by_hand import write_shard_set


@pytest.mark.parametrize(
    ("schema", "names"), [({"brand": "text", "price": "number"}, "brand, price"), ({}, "none")]
)
def test_unknown_attribute_is_refused(tmp_path: Path, schema: dict[str, str], names: str) -> None:
    write_shard_set(tmp_path, ["a", "b"])
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "item_schema": schema}))
    require_attributes(str(tmp_path), schema, "train.caption_weights")
    with pytest.raises(InputError) as caught:
        require_attributes(str(tmp_path), [*schema, "colour"], "train.caption_weights")
    assert str(caught.value) == (
        f"{tmp_path}: no item has the attribute 'colour' from train.caption_weights (found: {names}); "
        "pack again with this attribute, or remove it from train.caption_weights"
    )
