"""The stages that can be submitted, the names of their jobs, and the paths in their configuration."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysys import cli, pipeline
from raysys.cluster import jobs
from raysys.config import Config
from raysys.errors import InputError

HERE, ELSEWHERE = "http://127.0.0.1:8265", "http://head:8265"


def sent(config: dict[str, Any], where: str) -> Any:
    text = jobs.config_text(Config.model_validate(config), where=where, err=io.StringIO())
    return yaml.safe_load(text)


@pytest.mark.parametrize(
    ("key", "config"),
    [
        ("pack.parent", {"pack": {"parent": "old/shards"}}),
        ("train.robust.retention_set", {"train": {"robust": {"retention_set": "other/shards/val"}}}),
        ("catalog.path", {"catalog": {"kind": "folder", "path": "photos"}}),
        ("evaluate.log.path", {"evaluate": {"log": {"kind": "recorded", "path": "log.parquet"}}}),
    ],
)
def test_relative_path_is_refused_for_a_cluster_elsewhere(key: str, config: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=rf"^{key}: .* is relative to .*\({key}=\.\.\.\)$"):
        sent({"root": "s3://shop/raysys", **config}, ELSEWHERE)


def test_relative_paths_are_absolute_for_a_cluster_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = {
        "pack": {"parent": "old/shards"},
        "train": {"robust": {"retention_set": "other/shards/val"}},
        "evaluate": {"baselines": [{"name": "production", "embeddings": "vectors.parquet"}]},
    }
    tree = sent(config, HERE)
    assert tree["evaluate"]["baselines"][0]["embeddings"] == f"{tmp_path}/vectors.parquet"
    assert tree["pack"]["parent"] == f"{tmp_path}/old/shards"
    assert tree["train"]["robust"]["retention_set"] == f"{tmp_path}/other/shards/val"


def test_keywords_and_uris_are_sent_unchanged() -> None:
    tree = sent({"root": "s3://shop/raysys", "pack": {"parent": "gs://shop/old/shards"}}, ELSEWHERE)
    assert tree["pack"]["parent"] == "gs://shop/old/shards"
    assert tree["train"]["robust"]["retention_set"] == "drawn"
    assert tree["encoder"]["start"] == "tiny"


def test_every_stage_and_run_can_be_submitted() -> None:
    assert {"run", *pipeline.STAGES} <= set(jobs.COMMANDS)


def test_every_submittable_stage_is_a_command() -> None:
    help_text = cli._parser().format_help()
    commands = [line.split()[0] for line in help_text.splitlines() if line.startswith("    ")]
    assert [stage for stage in jobs.COMMANDS if stage not in commands] == []


def test_same_work_has_the_same_job_name_and_other_work_another() -> None:
    first = jobs.job_stem("train", "siglip", "name: siglip\n")
    assert first == jobs.job_stem("train", "siglip", "name: siglip\n")
    assert first.startswith("raysys-train-siglip-")
    assert len(first.removeprefix("raysys-train-siglip-")) == 10
    others = {
        jobs.job_stem("embed", "siglip", "name: siglip\n"),
        jobs.job_stem("train", "other", "name: siglip\n"),
        jobs.job_stem("train", "siglip", "name: siglip\ntrain: {epochs: 2}\n"),
    }
    assert len(others | {first}) == 4
