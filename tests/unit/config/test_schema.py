"""The schema: every setting is documented, paths are marked, rules name the settings they concern."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import pydantic
import pytest
from pydantic.fields import FieldInfo

from raysys.config import Config
from raysys.config.load import load_config
from raysys.config.schema import EmbedConfig, ScratchConfig, Section, TimeSplit, TrainConfig
from raysys.config.section import HubIdOrPath, SelectsAlpha, UriPath, marked_names, marked_values
from raysys.errors import ConfigError

# Their documentation mentions paths or folders, but their values are names of columns.
COLUMN_NAMES = {"Columns.image", "FolderColumns.image", "ColumnSplit.column"}


def sections_of(section: type[Section]) -> Iterator[type[Section]]:
    """A section and all sections that its fields may hold, through unions and optional ones."""
    yield section
    for field in section.model_fields.values():
        for inner in sections_in(field.annotation):
            yield from sections_of(inner)


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for part in get_args(annotation):
        yield from sections_in(part)


FIELDS: dict[str, FieldInfo] = {
    f"{section.__name__}.{name}": field
    for section in sections_of(Config)
    for name, field in section.model_fields.items()
}


def is_documented(field: FieldInfo) -> bool:
    is_constant = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
    return bool(field.description) or is_constant or any(sections_in(field.annotation))


def test_every_setting_is_documented() -> None:
    assert [name for name, field in FIELDS.items() if not is_documented(field)] == []


def test_every_section_is_documented() -> None:
    assert [section.__name__ for section in sections_of(Config) if not section.__doc__] == []


def test_every_setting_with_a_path_is_marked() -> None:
    about_paths = {
        name
        for name, field in FIELDS.items()
        if re.search(r"\b(paths?|URIs?|folders?)\b", f"{name.replace('.', ' ')} {field.description}")
    }
    marked = {
        name
        for name, field in FIELDS.items()
        if any(isinstance(mark, UriPath | HubIdOrPath) for mark in field.metadata)
    }
    assert about_paths - marked == COLUMN_NAMES
    assert "PackConfig.parent" in marked
    assert "RobustConfig.retention_set" in marked


def test_marked_values_follow_the_chosen_kind() -> None:
    config = Config.model_validate({"catalog": {"kind": "table", "path": "a.csv"}, "pack": {"parent": "old"}})
    paths = {key: value for key, value, _ in marked_values(config, UriPath)}
    assert paths == {
        "root": ".raysys",
        "catalog.path": "a.csv",
        "catalog.images": None,
        "pack.parent": "old",
        "train.robust.retention_set": "drawn",
        "embed.vectors": None,
        "embed.reuse": "published",
    }


def test_marked_values_of_a_list_of_sections_have_their_numbers() -> None:
    baselines = [{"name": "old", "embeddings": "a"}, {"name": "new", "embeddings": "b"}]
    config = Config.model_validate({"evaluate": {"baselines": baselines}})
    paths = {key: value for key, value, _ in marked_values(config.evaluate, UriPath)}
    assert paths == {"baselines.0.embeddings": "a", "baselines.1.embeddings": "b"}


@pytest.mark.parametrize(
    ("names", "compare_to", "message"),
    [
        (["zero_shot"], "zero_shot", "the name 'zero_shot' is taken by the report; choose another"),
        (["chance"], "zero_shot", "the name 'chance' is taken by the report"),
        (["a", "a"], "zero_shot", "two have the name 'a'; rename one"),
        (["production"], "prodution", "compare_to: no system 'prodution' in the report (found: random, "),
        (["a b"], "zero_shot", "evaluate.baselines.0.name"),
    ],
)
def test_names_of_baselines_are_checked(names: list[str], compare_to: str, message: str) -> None:
    baselines = [f"{{name: {name}, embeddings: v.parquet}}" for name in names]
    overrides = [f"evaluate.baselines=[{', '.join(baselines)}]", f"evaluate.compare_to={compare_to}"]
    with pytest.raises(ConfigError) as caught:
        load_config(None, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_marked_names_are_those_of_one_section() -> None:
    assert marked_names(type(Config().train.validation), SelectsAlpha) == {"max_items", "score"}
    assert marked_names(TrainConfig, SelectsAlpha) == set()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        (ScratchConfig, {"image_size_px": 60}, "image_size_px 60 is not a multiple of patch_size_px 8"),
        (ScratchConfig, {"num_heads": 3}, "hidden_size 128 is not a multiple of num_heads 3"),
        (TrainConfig, {"batch_size": 7, "workers": 2}, "batch_size 7 is not a multiple of workers 2"),
        (
            TrainConfig,
            {"micro_batch_size": 100},
            "share of 256 pairs is not a multiple of micro_batch_size 100",
        ),
        (TrainConfig, {"min_workers": 2}, "min_workers 2 is greater than workers 1"),
        (TrainConfig, {"lora": {}, "method": "distil"}, "lora cannot be combined with method 'distil'"),
        (TrainConfig, {"lora": {}, "optimizer": "muon"}, "set optimizer to adamw"),
        (TrainConfig, {"parallel": "fsdp", "optimizer": "muon"}, "set optimizer to adamw"),
        (EmbedConfig, {"splits": ["train", "train"]}, "'train' is listed 2 times; list each split once"),
        (TimeSplit, {"val_from": 1, "test_from": "2026-01-01"}, "must both be text or both be numbers"),
        (TimeSplit, {"val_from": 2, "test_from": 1}, "val_from 2.0 is later than test_from 1.0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    section: type[Section], values: dict[str, Any], message: str
) -> None:
    with pytest.raises(pydantic.ValidationError, match=re.escape(message)):
        section.model_validate(values)


@pytest.mark.parametrize(
    ("embed", "message"),
    [
        ({"encoder": "google/vit"}, "set embed.to .--to NAME., too"),
        ({"vectors": "v.parquet"}, "vectors needs a name for the set; set embed.to .--to NAME., too"),
        ({"to": "vit"}, "set embed.encoder .--encoder URI_OR_HUB_ID. or embed.vectors .--vectors URI., too"),
        (
            {"encoder": "google/vit", "vectors": "v.parquet", "to": "x"},
            "two sources of one set; set one of them",
        ),
        ({"encoder": "google/vit", "to": "shop-pca"}, "'shop-pca' holds the vectors of the trained encoder"),
        ({"vectors": "v.parquet", "to": "shop"}, "'shop' holds the vectors of the trained encoder"),
    ],
)
def test_other_vectors_need_a_place_of_their_own(embed: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Config.model_validate({"name": "shop", "embed": embed})


@pytest.mark.parametrize("name", ["shop", "shop-pca"])
def test_vectors_of_the_trained_encoder_are_not_indexed_by_name(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"index.embeddings: '{name}' has the vectors of the trained encoder"
    ):
        Config.model_validate({"name": "shop", "index": {"embeddings": name}})
