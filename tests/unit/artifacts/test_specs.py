"""Which settings change a training run, which change only a bundle of it, and which bundle is delivered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from raysys import artifacts
from raysys.artifacts import InputEntry, specs
from raysys.artifacts.layout import ArtifactLayout
from raysys.artifacts.vectors import vectors_input
from raysys.config import Config
from raysys.config.schema import IndexConfig, TrainConfig
from raysys.config.section import ChangeableOnResume, marked_names
from tests.embedding_sets import publish_set
from tests.factories import tiny_bundle
from tests.shards_by_hand import write_shard_set

# For every setting of `train`, changes that must, or must not, give another run.
DETERMINES_THE_RUN: dict[str, dict[str, Any]] = {
    "precision": {"precision": "bf16"},
    "method": {"method": "distil"},
    "lora": {"lora": {"rank": 8}},
    "teacher": {"teacher": {"embeddings": "/teacher"}},
    "ema_decay": {"ema_decay": 0.9},
    "batch_size": {"batch_size": 512},
    "optimizer": {"optimizer": "muon"},
    "learning_rate": {"learning_rate": 3e-5},
    "muon_learning_rate": {"muon_learning_rate": 0.01},
    "logit_scale_learning_rate": {"logit_scale_learning_rate": 1e-3},
    "max_logit_scale": {"max_logit_scale": 100.0},
    "weight_decay": {"weight_decay": 0.1},
    "beta2": {"beta2": 0.98},
    "warmup_fraction": {"warmup_fraction": 0.1},
    "frozen_image_layers": {"frozen_image_layers": 1},
    "frozen_text_layers": {"frozen_text_layers": "all"},
    "layer_decay": {"layer_decay": 0.9},
    "max_grad_norm": {"max_grad_norm": 5.0},
    "false_negatives": {"false_negatives": {"equal_titles": "masked"}},
    "caption_weights": {"caption_weights": {"brand": 0.5}},
    "augment": {"augment": {"flip_probability": 0.0}},
}
CHANGEABLE: dict[str, dict[str, Any]] = {
    "workers": {"workers": 4},
    "min_workers": {"workers": 4, "min_workers": 2},
    "use_gpu": {"use_gpu": True},
    "parallel": {"parallel": "fsdp"},
    "compile": {"compile": True},
    "activation_checkpointing": {"activation_checkpointing": "full"},
    "micro_batch_size": {"micro_batch_size": 64},
    "on_out_of_memory": {"on_out_of_memory": "halve"},
    "loss_tile_rows": {"loss_tile_rows": 64},
    "log_every_steps": {"log_every_steps": 1},
    "checkpoint_every_epochs": {"checkpoint_every_epochs": 0.5},
    "checkpoint_every_minutes": {"checkpoint_every_minutes": None},
    "on_config_change": {"on_config_change": "restart"},
    "collective_timeout_s": {"collective_timeout_s": 60},
    "max_failures": {"max_failures": 0},
    "robust": {"robust": {"distil_weight": 2.0, "top_layers": 1}},  # of methods that are not in use
}
CHANGES_ONLY_THE_BUNDLE: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 7},
    "patch_dropout": {"patch_dropout": 0.5},
    "validation": {"validation": {"max_items": 9}},
}


@pytest.fixture
def all_inputs_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every input artifact exists; its fingerprint is its URI."""
    monkeypatch.setattr(specs, "as_input", lambda uri, _: InputEntry(uri=uri, fingerprint=uri))
    monkeypatch.setattr(specs, "vectors_input", lambda uri: InputEntry(uri=uri, fingerprint=uri))


def spec_hashes(root: str = "/data", **changed: Any) -> tuple[str, str]:
    """The spec hashes of the run and of its fine-tuned bundle."""
    sections = {name: changed.pop(name) for name in ("encoder", "stream") if name in changed}
    config = Config.model_validate({"name": "shop", "root": root, "train": changed, **sections})
    return specs.training_run(config).spec_hash, specs.fine_tuned_encoder(config).spec_hash


def test_every_setting_of_train_has_an_expectation() -> None:
    expected = {*DETERMINES_THE_RUN, *CHANGEABLE, *CHANGES_ONLY_THE_BUNDLE}
    assert set(TrainConfig.model_fields) == expected, "decide whether the setting is ChangeableOnResume"
    changeable = {*CHANGEABLE, *CHANGES_ONLY_THE_BUNDLE} - {"robust"}
    assert marked_names(TrainConfig, ChangeableOnResume) == changeable


@pytest.mark.parametrize("changed", CHANGEABLE.values(), ids=CHANGEABLE)
@pytest.mark.usefixtures("all_inputs_exist")
def test_changeable_setting_keeps_run_and_bundle(changed: dict[str, Any]) -> None:
    assert spec_hashes(**changed) == spec_hashes()


@pytest.mark.parametrize(
    "changed",
    [
        *CHANGES_ONLY_THE_BUNDLE.values(),
        {"validation": {"score": "r@1"}},
        {"validation": {"patience": 2}},
    ],
)
@pytest.mark.usefixtures("all_inputs_exist")
def test_selection_of_the_checkpoint_changes_the_bundle_but_not_the_run(changed: dict[str, Any]) -> None:
    (run, bundle), (other_run, other_bundle) = spec_hashes(), spec_hashes(**changed)
    assert run == other_run
    assert bundle != other_bundle


@pytest.mark.parametrize(
    "changed",
    [
        *DETERMINES_THE_RUN.values(),
        {"stream": {"shuffle_window_shards": 3}},
        {"stream": {"scaled_decoding": False}},
        {"encoder": {"seed": 8}},
        {"root": "/other"},  # whose shards have another fingerprint here
    ],
)
@pytest.mark.usefixtures("all_inputs_exist")
def test_setting_of_the_run_changes_run_and_bundle(changed: dict[str, Any]) -> None:
    assert not set(spec_hashes()) & set(spec_hashes(**changed))


@pytest.mark.usefixtures("all_inputs_exist")
def test_settings_of_a_method_count_only_for_that_method() -> None:
    distil = {"method": "distil"}
    assert spec_hashes(**distil, robust={"distil_weight": 2.0}) != spec_hashes(**distil)
    assert spec_hashes(**distil, robust={"top_layers": 1}) == spec_hashes(**distil)


def test_content_of_a_teacher_counts_and_its_place_does_not(root: Path, tmp_path: Path) -> None:
    hashes = []
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        table = pa.table({"item_id": ["x"], "embedding": [[value, 0.5]]})
        pq.write_table(table, path := tmp_path / name)
        config = config_of(root, teacher={"embeddings": str(path)})
        assert specs.fine_tuned_encoder(config).inputs["teacher"].uri == str(path)
        hashes.append(specs.training_run(config).spec_hash)
    assert hashes[0] == hashes[1] != hashes[2]
    weighted = config_of(root, teacher={"embeddings": str(path), "weight": 2.0})
    assert specs.training_run(weighted).spec_hash != hashes[2]


def test_changed_file_of_a_teacher_has_another_fingerprint(tmp_path: Path) -> None:
    entries = []
    for size in (2, 3):
        pq.write_table(pa.table({"item_id": ["x"], "embedding": [[1.0] * size]}), tmp_path / "t.parquet")
        entries.append(vectors_input(str(tmp_path / "t.parquet")))
    assert entries[0].fingerprint != entries[1].fingerprint


@pytest.mark.usefixtures("all_inputs_exist")
def test_settings_of_a_run_have_the_names_of_the_configuration() -> None:
    run = specs.training_run(Config.model_validate({"name": "shop", "root": "/data"}))
    assert run.settings["train"]["learning_rate"] == 1e-5
    assert run.settings["train"]["method"] == "full"  # wise_ft trains in the same way
    assert run.settings["encoder"]["seed"] == Config().encoder.seed
    assert run.uri == f"/data/runs/shop/{run.spec_hash[:12]}"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with ShardSets, a start encoder and a fine-tuned encoder."""
    root = tmp_path_factory.mktemp("root")
    for split in ("train", "val", "retention"):
        write_shard_set(root / "shards" / split, ["a", "b"], split=split)
    for name in ("start", "tuned"):
        tiny_bundle(root / "encoders" / f"x-{name}", ["a cup", "a hat"])
    return root


def config_of(root: Path, **train: Any) -> Config:
    return Config.model_validate({"name": "x", "root": str(root), "train": train})


def test_interpolated_encoder_is_made_from_start_and_fine_tuned(root: Path) -> None:
    config, layout = config_of(root), ArtifactLayout(str(root), "x")
    fine_tuned, delivered = specs.fine_tuned_encoder(config), specs.encoder(config)
    assert (fine_tuned.uri, delivered.uri) == (f"{root}/encoders/x-tuned", f"{root}/encoders/x")
    assert {entry.uri for entry in delivered.inputs.values()} == {
        layout.start_encoder, layout.fine_tuned_encoder, layout.shards("val")
    }  # fmt: skip


@pytest.mark.parametrize("method", ["full", "distil", "top_layers"])
def test_other_methods_deliver_the_fine_tuned_encoder(root: Path, method: str) -> None:
    config = config_of(root, method=method)
    assert specs.encoder(config) == specs.fine_tuned_encoder(config)
    assert specs.encoder(config).uri == f"{root}/encoders/x"


def test_full_and_wise_ft_share_a_training_run(root: Path) -> None:
    hashes = {
        specs.fine_tuned_encoder(config_of(root, method=method)).spec_hash for method in ("full", "wise_ft")
    }
    assert len(hashes) == 1


@pytest.mark.parametrize(
    "changed",
    [
        {"robust": {"interpolation_steps": 3}},
        {"robust": {"retention_items": 9}},
        {"robust": {"max_retention_drop": 0.5}},
        {"validation": {"score": "r@1"}},
        {"validation": {"max_items": 9}},
    ],
)
def test_selection_of_alpha_changes_the_delivered_encoder_but_not_the_run(
    root: Path, changed: dict[str, Any]
) -> None:
    before, after = config_of(root), config_of(root, **changed)
    assert specs.training_run(before).spec_hash == specs.training_run(after).spec_hash
    assert specs.encoder(before).spec_hash != specs.encoder(after).spec_hash


@pytest.mark.parametrize(
    ("changed", "is_measured_again"),
    [
        ({"robust": {"interpolation_steps": 3}}, True),
        ({"robust": {"retention_items": 9}}, True),
        ({"validation": {"score": "r@1"}}, True),
        ({"robust": {"max_retention_drop": 0.5}}, False),  # the same points, another choice
        ({"epochs": 7}, False),
    ],
)
def test_points_are_measured_again_only_if_their_metrics_change(
    root: Path, changed: dict[str, Any], is_measured_again: bool
) -> None:
    before, after = config_of(root), config_of(root, **changed)
    assert (specs.sweep_hash(before) != specs.sweep_hash(after)) is is_measured_again


def test_early_stopping_does_not_change_the_interpolated_encoder(root: Path) -> None:
    before, after = config_of(root), config_of(root, validation={"patience": 3})
    assert specs.encoder(before).spec_hash == specs.encoder(after).spec_hash


def test_retention_set_of_the_user_is_an_input(root: Path) -> None:
    config = config_of(root, robust={"retention_set": f"{root}/shards/retention"})
    assert specs.encoder(config).inputs["retention_set"].uri == f"{root}/shards/retention"


def test_log_counts_only_if_it_can_select_alpha(root: Path) -> None:
    def spec_hash(score: str | None, queries: int) -> str:
        config = config_of(root, validation={"score": score})
        log = config.evaluate.log.model_copy(update={"queries": queries})
        section = config.evaluate.model_copy(update={"log": log})
        return specs.encoder(config.model_copy(update={"evaluate": section})).spec_hash

    assert spec_hash("r@5", 10) == spec_hash("r@5", 20)
    assert spec_hash(None, 10) != spec_hash(None, 20)


@pytest.mark.usefixtures("all_inputs_exist")
def test_report_follows_the_content_of_a_baseline_and_not_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specs, "vectors_input", vectors_input)

    def spec_hash(name: str, file: str, value: float) -> str:
        pq.write_table(pa.table({"item_id": ["a"], "embedding": [[value]]}), tmp_path / file)
        baselines = [{"name": name, "embeddings": str(tmp_path / file)}]
        config = {"name": "shop", "root": "/data", "evaluate": {"baselines": baselines}}
        return specs.report(Config.model_validate(config)).spec_hash

    first = spec_hash("old", "1.parquet", 1.0)
    assert spec_hash("old", "2.parquet", 1.0) == first
    assert len({first, spec_hash("old", "1.parquet", 2.0), spec_hash("new", "1.parquet", 1.0)}) == 3


@pytest.mark.usefixtures("all_inputs_exist")
def test_index_of_another_device_is_the_same() -> None:
    hashes = {
        specs.index(Config.model_validate({"index": index})).spec_hash
        for index in ({}, {"device": "cpu"}, {"device": "gpu"}, {"kind": "exact"})
    }
    assert len(hashes) == 2


def publish_vectors(config: Config, inputs: dict[str, InputEntry]) -> None:
    """Publish the set of `index.embeddings`, made from these inputs."""
    uri = specs.served_embeddings(config)
    manifest = publish_set(uri, {"a.parquet": [("i0", b"")]}, np.ones((1, 1), np.float32))
    artifacts.publish(uri, manifest.model_copy(update={"inputs": inputs}))


def test_index_of_named_embeddings_has_a_place_and_a_spec_of_its_own(tmp_path: Path) -> None:
    named = Config.model_validate({"name": "shop", "root": str(tmp_path), "index": {"embeddings": "old"}})
    own = named.model_copy(update={"index": IndexConfig()})
    publish_vectors(named, {})
    assert specs.index(named).uri == f"{tmp_path}/indexes/old" == specs.served_index(named)
    assert specs.served_index(own) == f"{tmp_path}/indexes/shop"
    assert "embeddings" not in specs.index(named).config


def test_queries_are_embedded_by_the_bundle_of_named_embeddings(tmp_path: Path) -> None:
    named = Config.model_validate({"name": "shop", "root": str(tmp_path), "index": {"embeddings": "old"}})
    bundle = tiny_bundle(tmp_path / "bundle", ["red cup"])
    publish_vectors(named, {"encoder": InputEntry(uri=bundle, fingerprint="x")})
    assert specs.served_encoder(named) == bundle


@pytest.mark.parametrize("role", ["encoder", "vectors"])
def test_vectors_of_no_bundle_have_no_encoder(tmp_path: Path, role: str) -> None:
    named = Config.model_validate({"name": "shop", "root": str(tmp_path), "index": {"embeddings": "old"}})
    publish_vectors(named, {role: InputEntry(uri="facebook/dinov2-small", fingerprint="x")})
    assert specs.served_encoder(named) is None
