"""The plan of `--dry-run` lists every artifact of a configuration, before any of them exists."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.config import Config
from raysys.errors import InputError, MissingArtifact
from raysys.pipeline import FRONTIER, STAGES, plan_stages, run_stages


def planned(config: Config, stages: list[str] | None = None) -> list[str]:
    """The planned URIs relative to the root."""
    lines = list(plan_stages(config, stages or list(STAGES)))
    return [line.split("-> ")[1].split("  ")[0].removeprefix(f"{config.root}/") for line in lines]


def test_plan_lists_every_artifact_of_an_empty_root(tmp_path: Path) -> None:
    assert planned(Config(name="shop", root=str(tmp_path))) == [
        "catalog",
        "shards/train",
        "shards/val",
        "shards/test",
        "encoders/shop-start",
        "encoders/shop-tuned",
        "encoders/shop",
        "embeddings/shop",
        "encoders/shop-pca",
        "embeddings/shop-pca",
        "indexes/shop",
        "reports/shop",
    ]


def test_plan_without_projection_and_interpolation(tmp_path: Path) -> None:
    config = Config.model_validate(
        {
            "name": "shop",
            "root": str(tmp_path),
            "train": {"method": "full"},
            "projection": {"dimensions": None},
        }
    )
    assert planned(config, ["train", "embed"]) == ["encoders/shop-start", "encoders/shop", "embeddings/shop"]


def test_frontier_is_a_plan_of_its_own(tmp_path: Path) -> None:
    assert planned(Config(name="shop", root=str(tmp_path)), [FRONTIER]) == ["reports/shop-frontier"]
    assert FRONTIER not in STAGES  # `raysys run` does not measure it


def test_missing_catalogue_is_an_error_and_not_a_plan(tmp_path: Path) -> None:
    catalog = {"kind": "table", "path": str(tmp_path / "missing.csv")}
    config = Config.model_validate({"root": str(tmp_path), "catalog": catalog})
    with pytest.raises(InputError, match=r"missing\.csv"):
        planned(config, ["pack"])


def test_attribute_of_a_late_stage_is_checked_before_the_first_one(tmp_path: Path) -> None:
    catalog = {"kind": "table", "path": "items.csv", "columns": {"attributes": {"colour": "text"}}}
    config = Config.model_validate(
        {"root": str(tmp_path), "catalog": catalog, "train": {"caption_weights": {"color": 1.0}}}
    )
    with pytest.raises(
        InputError, match="train.caption_weights: unknown attribute 'color'.*did you mean 'colour'"
    ):
        planned(config, ["pack", "train"])


def test_vectors_of_a_baseline_are_checked_before_the_first_stage(tmp_path: Path) -> None:
    baseline = {"name": "production", "embeddings": f"{tmp_path}/none.parquet"}
    config = Config.model_validate({"root": str(tmp_path), "evaluate": {"baselines": [baseline]}})
    with pytest.raises(InputError, match=r"none\.parquet: no such vectors"):
        planned(config)
    with pytest.raises(InputError, match=r"none\.parquet: no such vectors"):
        next(run_stages(config, list(STAGES)))
    assert [*tmp_path.iterdir()] == []
    assert planned(config, ["pack"])  # which does not read them


def test_other_encoder_is_for_embed_alone(tmp_path: Path) -> None:
    config = Config.model_validate({"root": str(tmp_path), "embed": {"encoder": "google/vit", "to": "vit"}})
    with pytest.raises(InputError) as caught:
        list(run_stages(config, ["embed", "index"]))
    assert str(caught.value) == (
        "embed.encoder: google/vit is for `raysys embed` alone, not for embed, index; "
        "remove embed.encoder and embed.to from the configuration"
    )


def test_other_vectors_are_for_embed_alone(tmp_path: Path) -> None:
    config = Config.model_validate({"root": str(tmp_path), "embed": {"vectors": "v.parquet", "to": "old"}})
    with pytest.raises(
        InputError, match="^embed.vectors: v.parquet is for `raysys embed` alone, not for index; "
    ):
        planned(config, ["index"])


def test_named_embeddings_are_indexed_by_index_and_not_by_run(tmp_path: Path) -> None:
    config = Config.model_validate({"root": str(tmp_path), "index": {"embeddings": "old"}})
    with pytest.raises(InputError) as caught:
        list(run_stages(config, list(STAGES)))
    assert str(caught.value) == (
        "index.embeddings: old is for `raysys index` and `raysys serve`, not for pack, train, embed, index, "
        "evaluate: the report is on the index of the trained encoder; set it to null"
    )
    assert planned(config, ["index"]) == ["indexes/old"]
    with pytest.raises(MissingArtifact) as missing:
        list(run_stages(config, ["index"]))
    assert str(missing.value) == (
        f"index.embeddings: {tmp_path}/embeddings/old: no EmbeddingSet here; make it with "
        "`raysys embed CONFIG --vectors URI --to old`, or with --encoder instead of --vectors"
    )
