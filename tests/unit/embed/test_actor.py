"""The embedding actor: vectors that are not usable go to the ledger, all others to the part."""

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import safetensors.torch

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest
from raysys.embed.actor import EmbeddingActor
from raysys.embed.options import EncoderOptions
from raysys.embed.parts import part_prefix
from raysys.encoder.bundle import publish_bundle
from raysys.encoder.image_encoder import describe_image_encoder
from raysys.encoder.text import TextPreprocessing
from raysys.errors import SpaceMismatch
from tests.factories import TINY, tiny_checkpoint

SIZE_PX = TINY.image_size_px
OPTIONS = EncoderOptions("cpu", "fp32", batch_size=2)


def bundle(folder: Path, bad_weights: float | None) -> str:
    """A small encoder; with `bad_weights` they fill one tensor of its image tower."""
    checkpoint = folder / "checkpoint"
    tiny_checkpoint(checkpoint, ["red cup", "blue cup"])
    if bad_weights is not None:
        weights = checkpoint / "model.safetensors"
        tensors = safetensors.torch.load_file(weights)
        tensors["vision_model.head.layernorm.weight"].fill_(bad_weights)
        safetensors.torch.save_file(tensors, weights, metadata={"format": "pt"})

    def write_files(draft: Path) -> None:
        for path in checkpoint.iterdir():
            (draft / path.name).write_bytes(path.read_bytes())

    uri = str(folder / "encoder")
    publish_bundle(
        ArtifactSpec(uri, EncoderBundleManifest, {}, {}), write_files, text=TextPreprocessing(TINY.max_length)
    )
    return uri


def block(reasons: list[str], earlier: list[list[float] | None] | None = None) -> pa.Table:
    """A block of random photos; those with a reason have no pixels. `earlier` has vectors of an earlier set."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (len(reasons), SIZE_PX * SIZE_PX * 3), np.uint8)
    num = len(reasons)
    return pa.table(
        {
            "item_id": [f"i{row}" for row in range(num)],
            "title": ["a cup"] * num,
            "attributes": ["{}"] * num,
            "group": ["g"] * num,
            "split": ["train"] * num,
            "shard": ["s3://shop/00007.tar"] * num,
            "image_offset": [512 * row for row in range(num)],
            "image_bytes": [100] * num,
            "content_hash": [""] * num,
            "pixels": pa.array(
                [b"" if reason else row.tobytes() for row, reason in zip(pixels, reasons, strict=True)],
                pa.large_binary(),
            ),
            "reason": reasons,
            "detail": ["cut off" if reason else "" for reason in reasons],
            "embedding": pa.array(earlier or [None] * num, pa.list_(pa.float32())),
        }
    )


def run(folder: Path, reasons: list[str], bad_weights: float | None) -> tuple[int, list[dict[str, str]]]:
    actor = EmbeddingActor(describe_image_encoder(bundle(folder, bad_weights)), str(folder / "out"), OPTIONS)
    (row,) = actor(block(reasons)).to_pylist()
    return row["num_items"], json.loads(row["refused"])


def parts(folder: Path) -> dict[str, list[str]]:
    return {
        path.name: pq.read_table(path).column("item_id").to_pylist()
        for path in (folder / "out").glob("*.parquet")
    }


def test_items_without_a_photo_keep_their_reason(tmp_path: Path) -> None:
    num_items, refused = run(tmp_path, ["missing", "", ""], bad_weights=None)
    assert num_items == 2
    assert refused == [
        {"item_id": "i0", "reason": "missing", "detail": "cut off", "source": "s3://shop/00007.tar"}
    ]
    assert parts(tmp_path) == {"train-00007-749665fa-000000000512.parquet": ["i1", "i2"]}


@pytest.mark.parametrize(("bad_weights", "fault"), [(np.nan, "has a NaN"), (np.inf, "has a NaN")])
def test_vectors_of_broken_weights_go_to_the_ledger(tmp_path: Path, bad_weights: float, fault: str) -> None:
    num_items, refused = run(tmp_path, ["", "missing", ""], bad_weights)
    assert num_items == 0
    assert [(row["item_id"], row["reason"], row["detail"]) for row in refused] == [
        ("i1", "missing", "cut off"),
        ("i0", "bad_vector", f"its vector {fault}"),
        ("i2", "bad_vector", f"its vector {fault}"),
    ]
    assert parts(tmp_path) == {}


def test_one_bad_vector_leaves_the_others_in_the_part_of_its_block(tmp_path: Path) -> None:
    encoder = describe_image_encoder(bundle(tmp_path, None))
    actor = EmbeddingActor(encoder, str(tmp_path / "out"), OPTIONS)
    # Vectors of an earlier set are written as they are.
    first, *rest = np.eye(encoder.dimensions, dtype=np.float32)[:2].tolist()
    (row,) = actor(block(["", "", ""], [[float("nan"), *first[1:]], *rest, [0.0] * len(first)])).to_pylist()
    assert row["num_items"] == 1
    assert [entry["item_id"] for entry in json.loads(row["refused"])] == ["i0", "i2"]
    # Named by the block's first photo: a repeated attempt overwrites it, whichever vectors are bad.
    assert parts(tmp_path) == {"train-00007-749665fa-000000000000.parquet": ["i1"]}


def test_vectors_of_an_earlier_set_are_written_as_they_are_and_others_computed(tmp_path: Path) -> None:
    actor = EmbeddingActor(describe_image_encoder(bundle(tmp_path, None)), str(tmp_path / "out"), OPTIONS)
    actor(block(["", "", ""]))
    (path,) = (tmp_path / "out").glob("*.parquet")
    computed = np.array(pq.read_table(path).column("embedding").to_pylist())
    earlier = [0.0] * (TINY.hidden_size - 1) + [1.0]
    (row,) = actor(block(["", "", ""], [None, earlier, None])).to_pylist()
    assert row["num_items"] == 3
    stored = np.array(pq.read_table(path).column("embedding").to_pylist())
    assert stored[1].tolist() == earlier
    np.testing.assert_allclose(stored[[0, 2]], computed[[0, 2]], atol=1e-6)


def test_error_of_raysys_is_a_result(tmp_path: Path) -> None:
    # Raised in a Ray actor it would arrive as text, after a page of tracebacks.
    uri = bundle(tmp_path, None)
    encoder = describe_image_encoder(uri)
    config = Path(uri, "manifest.json")
    config.write_text(config.read_text().replace('"lower_case": true', '"lower_case": false'))
    actor = EmbeddingActor(encoder, str(tmp_path / "out"), OPTIONS)
    (row,) = actor(block([""])).to_pylist()
    assert (row["num_items"], row["refused"]) == (0, "[]")
    error = pickle.loads(row["error"])
    assert isinstance(error, SpaceMismatch)
    assert str(error).startswith(f"{uri}: manifest is of embedding space ")


def test_copy_of_an_encoder_that_is_of_another_space_is_refused(tmp_path: Path) -> None:
    encoder = dataclasses.replace(describe_image_encoder(bundle(tmp_path, None)), space_id="of the driver")
    (row,) = EmbeddingActor(encoder, str(tmp_path / "out"), OPTIONS)(block([""])).to_pylist()
    with pytest.raises(SpaceMismatch, match="is of embedding space of the drive, its copy here of "):
        raise pickle.loads(row["error"])


def test_tars_of_one_name_in_two_folders_have_parts_of_their_own() -> None:
    """A pack with a parent, or a WebDataset with sub-folders, has such tars."""
    prefixes = {part_prefix("train", f"s3://shop/{folder}/00000.tar") for folder in ("monday", "tuesday")}
    assert len(prefixes) == 2
    assert part_prefix("train", "s3://shop/monday/00000.tar") in prefixes
