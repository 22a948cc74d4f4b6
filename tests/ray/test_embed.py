"""`raysys embed`: vectors equal those of plain transformers, one row an item, and only incomplete shards are repeated."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.numpy
import safetensors.torch
import torch
import transformers
from PIL import Image

from raysys import artifacts, pipeline, storage
from raysys.artifacts import EmbeddingSetManifest, EncoderBundleManifest, specs
from raysys.artifacts.build import Outcome
from raysys.artifacts.embedding_set import read_embeddings, vector_files, vectors_of
from raysys.columns import content_hash
from raysys.config import Config
from raysys.config.schema import EmbedConfig, StreamConfig
from raysys.embed import job
from raysys.embed.delta import find_earlier
from raysys.embed.parts import require_few_refused
from raysys.encoder.bundle import copy_checkpoint, publish_bundle
from raysys.encoder.image_encoder import describe_image_encoder
from raysys.encoder.start import text_preprocessing, write_start
from raysys.encoder.vision import VisionEncoder
from raysys.errors import ClusterError, DamagedData, InputError, RaysysError, SpaceMismatch
from raysys.shards.reader import Item, read_shard, shards_of
from raysys.stream.concurrency import Concurrency
from raysys.stream.decode import EmbeddingDecoder
from tests.embedding_sets import publish_set
from tests.factories import save_vision_model, write_shard
from tests.ray.held_cpus import cpus_held_elsewhere

pytestmark = [
    pytest.mark.usefixtures("ray_cluster"),
    # Ray 2.60 sets its own deprecated settings when it makes a DataContext.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.data.context"),
]
SPLITS = ("train", "val", "test")
SMALL = {
    "train": {"method": "full"},  # without WiSE-FT the fine-tuned bundle is the one to embed
    "name": "small",
    "catalog": {"kind": "drawn", "num_items": 60, "size_px": 40},
    "pack": {"items_per_shard": 16},
    "encoder": {
        "start": "scratch",
        "scratch": {
            "image_size_px": 32, "hidden_size": 32, "num_layers": 2, "num_heads": 2, "text_num_layers": 1,
            "vocab_size": 200, "max_length": 8,
        }
    },
    "stream": {"decode_concurrency": 1},
    "projection": {"dimensions": 8},
}  # fmt: skip


@dataclass(frozen=True)
class Embedded:
    """An embedded catalogue."""

    config: Config
    outcome: Outcome

    @property
    def uri(self) -> str:
        return specs.layout_of(self.config).embeddings

    @property
    def projected_uri(self) -> str:
        return specs.layout_of(self.config).projected_embeddings

    def stored(self, split: str) -> list[tuple[str, Item]]:
        """The shard URI of each item of a split, and the item, in the order of the shards."""
        shards = shards_of(specs.layout_of(self.config).shards(split))
        return [(shard.uri, stored) for shard in shards for stored in read_shard(shard)]


@pytest.fixture(scope="module")
def embedded(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Embedded:
    """A drawn catalogue embedded with an untrained encoder, and its projection."""
    config = Config.model_validate({**SMALL, "root": str(tmp_path_factory.mktemp("root"))})
    pipeline.run_stage("pack", config)
    publish_untrained(config)
    return Embedded(config, pipeline.run_stage("embed", config))


def publish_untrained(config: Config) -> None:
    """Publish the start as the fine-tuned encoder, because these tests need no training."""
    layout, text = specs.layout_of(config), text_preprocessing(config.encoder)
    titles = [stored.title for shard in shards_of(layout.shards("train")) for stored in read_shard(shard)]
    publish_bundle(
        specs.start_encoder(config), lambda folder: write_start(folder, config.encoder, titles), text=text
    )

    def write_files(folder: Path) -> None:
        copy_checkpoint(Path(layout.start_encoder), folder)

    publish_bundle(specs.fine_tuned_encoder(config), write_files, text=text)


def reference_vectors(folder: str, items: list[Item]) -> np.ndarray:
    """Unit vectors of the photos, computed by plain transformers."""
    model: Any = transformers.AutoModel.from_pretrained(folder).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    photos = [Image.open(io.BytesIO(item.image)) for item in items]
    with torch.inference_mode():
        features = model.get_image_features(**processor(images=photos, return_tensors="pt")).pooler_output
    return torch.nn.functional.normalize(features, dim=-1).numpy()


@pytest.mark.parametrize("split", SPLITS)
def test_every_item_has_one_row_in_the_order_of_the_shards(embedded: Embedded, split: str) -> None:
    rows = read_embeddings(embedded.uri, [split]).to_pylist()
    stored = embedded.stored(split)
    assert [row["item_id"] for row in rows] == [item.item_id for _, item in stored]
    for row, (shard, item) in zip(rows, stored, strict=True):
        assert (row["title"], json.loads(row["attributes"])) == (item.title, item.attributes)
        assert row["content_hash"] == content_hash(item.image, item.title)
        assert storage.read_range(row["shard"], row["image_offset"], row["image_bytes"]) == item.image
        assert row["shard"] == shard


def test_manifests_count_items_parts_and_dimensions(embedded: Embedded) -> None:
    manifests = [
        artifacts.open_artifact(uri, EmbeddingSetManifest) for uri in (embedded.uri, embedded.projected_uri)
    ]
    assert [manifest.num_items for manifest in manifests] == [60, 60]
    assert [manifest.dimensions for manifest in manifests] == [32, 8]
    assert len(read_embeddings(embedded.uri)) == embedded.outcome.num_items == 60
    num_shards = sum(len(shards_of(specs.layout_of(embedded.config).shards(split))) for split in SPLITS)
    assert len(vector_files(manifests[0])) == num_shards  # shards of this size have one part each
    assert [manifest.num_refused for manifest in manifests] == [0, 0]


@pytest.mark.parametrize("split", SPLITS)
def test_stored_vectors_equal_those_of_plain_transformers(embedded: Embedded, split: str) -> None:
    folder = specs.layout_of(embedded.config).encoder
    expected = reference_vectors(folder, [stored for _, stored in embedded.stored(split)])
    assert float(np.abs(vectors_of(read_embeddings(embedded.uri, [split])) - expected).max()) < 1e-5


@pytest.mark.parametrize("split", SPLITS)
def test_projected_vectors_equal_the_projection_of_plain_transformers(embedded: Embedded, split: str) -> None:
    folder = specs.layout_of(embedded.config).projected_encoder
    tensors = safetensors.numpy.load_file(f"{folder}/projection.safetensors")
    unit = reference_vectors(folder, [stored for _, stored in embedded.stored(split)])
    projected = (unit - tensors["mean"]) @ tensors["components"].T
    expected = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    stored = vectors_of(read_embeddings(embedded.projected_uri, [split]))
    assert stored.shape[1] == 8
    assert float(np.abs(stored - expected).max()) < 1e-5


def test_embedding_sets_have_the_space_id_of_their_encoder(embedded: Embedded) -> None:
    layout = specs.layout_of(embedded.config)
    for encoder, embeddings in (
        (layout.encoder, embedded.uri),
        (layout.projected_encoder, embedded.projected_uri),
    ):
        space_id = artifacts.open_artifact(encoder, EncoderBundleManifest).space_id
        assert artifacts.open_artifact(embeddings, EmbeddingSetManifest).space_id == space_id


def test_second_run_is_skipped(embedded: Embedded) -> None:
    assert not embedded.outcome.is_skipped
    assert pipeline.run_stage("embed", embedded.config).is_skipped


# Slow: runs a second embedding job.
@pytest.mark.slow
def test_after_a_crash_only_the_incomplete_shard_is_embedded_again(embedded: Embedded) -> None:
    before = artifacts.open_artifact(embedded.uri, EmbeddingSetManifest)
    parts = {name: Path(embedded.uri, before.folder, name) for name in vector_files(before)}
    lost = next(name for name in sorted(parts) if name.startswith("train-00001-"))
    times = {name: path.stat().st_mtime_ns for name, path in parts.items()}
    # A killed run leaves the parts that it wrote, but no manifest.
    Path(embedded.uri, "manifest.json").unlink()
    parts[lost].unlink()
    pipeline.run_stage("embed", embedded.config)
    changed = [name for name, path in parts.items() if path.stat().st_mtime_ns != times[name]]
    assert changed == [lost]
    assert artifacts.open_artifact(embedded.uri, EmbeddingSetManifest).fingerprint == before.fingerprint
    assert pq.read_metadata(parts[lost]).num_rows == 16


def test_only_new_content_is_embedded_and_removed_items_go(embedded: Embedded, tmp_path: Path) -> None:
    layout = specs.layout_of(embedded.config)
    encoder = artifacts.open_artifact(layout.encoder, EncoderBundleManifest)
    first, second, third, fourth = (item for _, item in embedded.stored("train")[:4])
    # Vectors that the encoder does not compute show which ones are carried over.
    old = {"train-a-0.parquet": [("same", first.image), ("other photo", second.image), ("gone", third.image)]}
    uri = str(tmp_path / "embeddings")
    publish_set(uri, old, np.eye(3, 32, dtype=np.float32), space_id=encoder.space_id)
    now = {"same": first, "other photo": fourth, "new": fourth}
    items = [Item(item_id, "cup", item.image, {"price": 7}) for item_id, item in now.items()]
    shards = [write_shard(tmp_path, items)]
    spec = dataclasses.replace(specs.embeddings(embedded.config), uri=uri)
    earlier = find_earlier(spec, encoder.space_id, EmbedConfig())
    assert earlier is not None
    section = EmbedConfig(price_per_device_hour=36.0)
    stream = StreamConfig(decode_concurrency=1)
    manifest = job.embed(
        spec, describe_image_encoder(layout.encoder), shards, section, stream, earlier=earlier
    )
    counts = (manifest.num_items, manifest.num_carried_over, manifest.num_removed, manifest.num_refused)
    assert counts == (3, 1, 1, 0)
    rows = {row["item_id"]: row for row in read_embeddings(uri).to_pylist()}
    assert list(rows) == ["same", "other photo", "new"]
    assert rows["same"]["embedding"] == [1.0] + [0.0] * 31
    assert (rows["same"]["attributes"], rows["same"]["shard"]) == ('{"price": 7}', shards[0].uri)
    (expected,) = reference_vectors(layout.encoder, [fourth])
    for item_id in ("other photo", "new"):
        np.testing.assert_allclose(rows[item_id]["embedding"], expected, atol=1e-5)
    speed = manifest.throughput
    assert speed is not None
    assert speed.num_photos == 3
    assert speed.cost_per_million == pytest.approx(36.0 * speed.device_seconds / 3600 / 3 * 1e6, rel=1e-3)
    assert 0 < speed.busy_fraction < 1
    # The set that was replaced is gone, and so is the table of its hashes.
    assert {path.name for path in Path(uri).iterdir()} == {"manifest.json", manifest.folder}
    assert {path.name for path in Path(uri, manifest.folder).iterdir()} == set(manifest.files)


def test_any_image_model_embeds_the_same_shards_in_a_space_of_its_own(
    embedded: Embedded, tmp_path: Path
) -> None:
    source = save_vision_model(tmp_path)
    tree = embedded.config.model_dump() | {
        "embed": {"encoder": source, "to": "vit", "splits": ["val", "test"]}
    }
    config = Config.model_validate(tree)
    outcome = pipeline.run_stage("embed", config)
    assert outcome.uri == f"{config.root}/embeddings/vit"
    manifest = artifacts.open_artifact(outcome.uri, EmbeddingSetManifest)
    assert manifest.space_id == VisionEncoder(source).space_id
    assert manifest.inputs["encoder"].uri == source
    assert manifest.parity is not None
    assert [*manifest.parity.largest] == ["batch"]
    stored = [item for split in ("val", "test") for _, item in embedded.stored(split)]
    expected = VisionEncoder(source).embed_photos([item.image for item in stored])
    table = read_embeddings(outcome.uri)
    rows = {item_id: row for row, item_id in enumerate(table.column("item_id").to_pylist())}
    assert sorted(rows) == sorted(item.item_id for item in stored)
    order = [rows[item.item_id] for item in stored]
    assert float(np.abs(vectors_of(table)[order] - expected).max()) < 1e-5
    assert pipeline.run_stage("embed", config).is_skipped
    assert artifacts.open_artifact(embedded.uri, EmbeddingSetManifest).space_id != manifest.space_id


# Slow: end to end on a cluster; tests/unit/stream/test_decode.py and the next test cover the parts.
@pytest.mark.slow
def test_item_that_cannot_be_embedded_goes_to_the_ledger_and_others_are_embedded(
    embedded: Embedded, tmp_path: Path
) -> None:
    (_, first), *_ = embedded.stored("val")
    broken = Item("broken", "a cup", b"no photo")
    shards = [write_shard(tmp_path, [first, broken], split="val")]
    layout = specs.layout_of(embedded.config)
    spec = dataclasses.replace(specs.embeddings(embedded.config), uri=f"{tmp_path}/embeddings")
    tolerant = StreamConfig(max_bad_fraction=0.5, decode_concurrency=1)
    manifest = job.embed(spec, describe_image_encoder(layout.encoder), shards, EmbedConfig(), tolerant)
    assert (manifest.num_items, manifest.num_refused) == (1, 1)
    ledger = pq.read_table(f"{tmp_path}/embeddings/{manifest.folder}/ledger.parquet").to_pylist()
    assert ledger == [
        {
            "item_id": "broken",
            "reason": "unreadable_photo",
            "detail": "not a photo (8 bytes); give JPEG, PNG or WebP",
            "source": shards[0].uri,
        }
    ]
    assert read_embeddings(f"{tmp_path}/embeddings").column("item_id").to_pylist() == [first.item_id]


# Slow: two more embedding jobs.
@pytest.mark.slow
@pytest.mark.parametrize(("weights", "kind"), [("another_space", SpaceMismatch), ("nan", DamagedData)])
def test_unusable_encoder_is_one_error_of_its_class(
    embedded: Embedded,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    weights: str,
    kind: type[RaysysError],
) -> None:
    layout = specs.layout_of(embedded.config)
    encoder = specs.fine_tuned_encoder(embedded.config)
    spec = dataclasses.replace(encoder, uri=str(tmp_path / "encoder"))

    def write_files(folder: Path) -> None:
        copy_checkpoint(Path(layout.encoder), folder)
        if weights == "nan":
            tensors = safetensors.torch.load_file(folder / "model.safetensors")
            tensors["vision_model.head.layernorm.weight"].fill_(float("nan"))
            safetensors.torch.save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    publish_bundle(spec, write_files, text=text_preprocessing(embedded.config.encoder))
    if weights == "another_space":
        manifest = Path(spec.uri, "manifest.json")
        manifest.write_text(manifest.read_text().replace('"space_id": "', '"space_id": "f'))
    output = dataclasses.replace(specs.embeddings(embedded.config), uri=str(tmp_path / "embeddings"))
    shards, tolerant = (
        shards_of(layout.shards("val")),
        StreamConfig(max_bad_fraction=1.0, decode_concurrency=1),
    )
    with pytest.raises(kind) as caught:
        job.embed(output, describe_image_encoder(spec.uri), shards, EmbedConfig(), tolerant)
    assert str(caught.value).startswith(spec.uri)
    assert "\n" not in str(caught.value)
    assert "Traceback" not in capfd.readouterr().err
    assert not Path(output.uri, "manifest.json").exists()


def test_decoders_and_encoders_beyond_the_cluster_are_refused(embedded: Embedded, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        embed_val(embedded, tmp_path, StreamConfig(decode_concurrency=7))
    assert str(caught.value) == (
        "embed: 1 encoder (embed.actors) with 1 CPU each, 1 reader (stream.read_concurrency) with 1 CPU each, "
        "7 decoders (stream.decode_concurrency) with 1 CPU each need 9 CPUs together; "
        "the cluster has 1 node with 8 CPUs and 0 GPUs; "
        "lower stream.decode_concurrency to 6, or set it to null, or raise ray.num_cpus"
    )


def test_encoders_ask_ray_for_a_gpu_each_and_get_whole_blocks(
    embedded: Embedded, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Data plans it; this cluster has no GPU to run it."""
    planned: list[Any] = []

    @contextlib.contextmanager
    def no_rows(dataset: Any) -> Iterator[list[dict[str, Any]]]:
        planned.append(dataset)
        yield []

    monkeypatch.setattr(job, "admit", lambda *_, **__: Concurrency(1, 1))
    monkeypatch.setattr(job, "open_rows", no_rows)
    encoder = describe_image_encoder(specs.layout_of(embedded.config).encoder)
    shards = shards_of(specs.layout_of(embedded.config).shards("val"))
    section = EmbedConfig(use_gpu=True, actors=2)
    assert not list(
        job.embed_shards(
            "", encoder, shards, EmbeddingDecoder(encoder.image), section, StreamConfig(), may_grow=False
        )
    )
    (dataset,) = planned
    operator = dataset._logical_plan.dag
    assert (operator.ray_remote_args["num_gpus"], operator.batch_size, operator.compute.min_size) == (
        1,
        None,
        2,
    )


def test_embedding_that_gets_no_cpu_for_reading_ends_with_what_waits(
    embedded: Embedded, tmp_path: Path
) -> None:
    section = StreamConfig(decode_concurrency=2, first_batch_timeout_s=5.0)
    with cpus_held_elsewhere(5), pytest.raises(ClusterError) as caught:
        embed_val(embedded, tmp_path, section)
    assert str(caught.value).startswith("embed: no batch within ")
    assert ": reading: 1 task, " in str(caught.value)
    assert " of 2 actors running, 0 tasks, 0 queued; embedding: " in str(caught.value)
    assert "; 0 of 8 CPUs of the cluster are free; if CPUs are missing, " in str(caught.value)


def embed_val(embedded: Embedded, folder: Path, section: StreamConfig) -> None:
    """Embed the validation split again, into another folder."""
    layout = specs.layout_of(embedded.config)
    spec = dataclasses.replace(specs.embeddings(embedded.config), uri=f"{folder}/embeddings")
    encoder = describe_image_encoder(layout.encoder)
    job.embed(spec, encoder, shards_of(layout.shards("val")), EmbedConfig(), section)


def test_too_many_refused_items_are_an_error_naming_the_worst_shard() -> None:
    row = {"item_id": "i3", "reason": "missing", "detail": "2 of 3 samples are there", "source": "a.tar"}
    require_few_refused([row], total=100, max_bad_fraction=0.01)
    with pytest.raises(DamagedData) as caught:
        require_few_refused([row, row], total=100, max_bad_fraction=0.01)
    assert str(caught.value) == (
        "a.tar: has 2 of the 2 items (of 100) that cannot be embedded (first i3: missing: 2 of 3 samples are there); "
        "run `raysys verify`, pack again, or raise stream.max_bad_fraction"
    )
