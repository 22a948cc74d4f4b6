"""Configuration from files and overrides: precedence and error messages."""

import typing
from pathlib import Path
from typing import Any

import pytest
import yaml

from raysys.config import Config, load_config
from raysys.config.load import REMOVED_KEYS, RENAMED_KEYS
from raysys.config.schema import AttributeSplit, ColumnSplit, DrawnCatalog, SimulatedLog, TableCatalog
from raysys.errors import ConfigError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run in an empty folder, so that messages name `shop.yaml` without its folder."""
    monkeypatch.chdir(tmp_path)


def write(name: str, text: str = "") -> str:
    Path(name).write_text(text, encoding="utf-8")
    return name


def error_of(path: str, *words: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load_config(path, list(words))
    return str(caught.value)


def test_empty_file_gives_the_defaults() -> None:
    assert load_config(write("shop.yaml")) == Config()


def test_later_files_win_key_by_key() -> None:
    write("base.yaml", "name: base\ntrain: {epochs: 2, workers: 2}")
    write("middle.yaml", "extends: base.yaml\ntrain: {epochs: 3, batch_size: 64}")
    config = load_config(write("top.yaml", "extends: middle.yaml\nname: top"))
    assert (config.name, config.train.epochs) == ("top", 3.0)
    assert (config.train.workers, config.train.batch_size) == (2, 64)


def test_extended_file_is_relative_to_the_extending_file() -> None:
    Path("team").mkdir()
    write("base.yaml", "name: shared")
    assert load_config(write("team/shop.yaml", "extends: ../base.yaml")).name == "shared"


def test_files_that_extend_each_other_are_refused() -> None:
    write("one.yaml", "extends: two.yaml")
    write("two.yaml", "extends: one.yaml")
    assert error_of("one.yaml") == "one.yaml: extends itself (through two.yaml); break the loop"


def test_file_that_extends_itself_is_refused() -> None:
    write("one.yaml", "extends: one.yaml")
    assert error_of("one.yaml") == "one.yaml: extends itself (through one.yaml); break the loop"


def test_extends_takes_one_file_name() -> None:
    write("one.yaml", "extends: [base.yaml]")
    assert error_of("one.yaml") == "one.yaml: extends: must be one file name, got ['base.yaml']"


def test_changed_kind_replaces_its_section() -> None:
    write("base.yaml", "catalog: {kind: drawn, num_items: 100, seed: 3}")
    config = load_config(write("shop.yaml", "extends: base.yaml\ncatalog: {kind: table, path: items.csv}"))
    assert config.catalog == TableCatalog(path="items.csv")  # num_items would be an unknown key here


def test_same_kind_merges_its_section() -> None:
    write("base.yaml", "catalog: {kind: drawn, num_items: 100}")
    config = load_config(write("shop.yaml", "extends: base.yaml\ncatalog: {kind: drawn, seed: 3}"))
    assert config.catalog == DrawnCatalog(num_items=100, seed=3)


def test_overrides_replace_values_of_files_and_are_yaml() -> None:
    path = write("shop.yaml", "train: {epochs: 2, workers: 2}")
    config = load_config(
        path,
        ["train.epochs=3", "embed.splits=[val, test]", "projection.dimensions=null", "train.use_gpu=true"],
    )
    assert (config.train.epochs, config.train.workers, config.train.use_gpu) == (3.0, 2, True)
    assert config.embed.splits == ("val", "test")
    assert config.projection.dimensions is None


def test_override_with_a_different_kind_replaces_the_section() -> None:
    path = write("shop.yaml", "pack: {split: {kind: attribute, seed: 3}}")
    config = load_config(path, ["pack.split.kind=column", "pack.split.column=part"])
    assert config.pack.split == ColumnSplit(column="part")


def test_override_of_the_kind_may_follow_overrides_of_its_section() -> None:
    config = load_config(write("shop.yaml"), ["catalog.path=a.csv", "catalog.kind=table"])
    assert config.catalog == TableCatalog(path="a.csv")


def test_map_with_a_key_kind_is_not_merged_with_its_default() -> None:
    config = load_config(write("shop.yaml", "evaluate: {log: {weights: {colour: 1.0}}}"))
    assert config.evaluate.log == SimulatedLog(weights={"colour": 1.0})


def test_section_without_a_kind_has_the_default_kind() -> None:
    config = load_config(write("shop.yaml"), ["pack.split.val_fraction=0.3", "catalog.num_items=100"])
    assert config.pack.split == AttributeSplit(val_fraction=0.3)
    assert config.catalog == DrawnCatalog(num_items=100)


@pytest.mark.parametrize("number", ["1.0e-3", "1e-3", "0.001"])
def test_every_notation_of_a_number_is_accepted(number: str) -> None:
    path = write("shop.yaml", f"train: {{learning_rate: {number}}}")  # YAML 1.1 reads 1e-3 as text
    assert load_config(path).train.learning_rate == 0.001
    assert load_config(write("none.yaml"), [f"train.learning_rate={number}"]).train.learning_rate == 0.001


def test_text_is_refused_where_a_number_is_required() -> None:
    assert error_of(write("shop.yaml"), "train.learning_rate=fast") == (
        "train.learning_rate=fast: train.learning_rate: input should be a valid number, "
        "unable to parse string as a number, got 'fast'"
    )


def test_unknown_key_names_its_file_and_a_similar_key() -> None:
    write("base.yaml", "train: {lerning_rate: 1.0}")
    assert error_of(write("shop.yaml", "extends: base.yaml\ntrain: {epochs: 1}")) == (
        "base.yaml: train.lerning_rate: unknown key; did you mean 'learning_rate'?"
    )


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items(), ids=RENAMED_KEYS)
def test_renamed_key_names_its_new_key(old: str, new: str) -> None:
    (section, _, old_name), (new_section, _, new_name) = old.rpartition("."), new.rpartition(".")
    assert new_name in fields_at(new_section)
    assert old_name not in fields_at(section)
    suggestion = new_name if section == new_section else new
    line = error_of(write("shop.yaml", yaml.safe_dump(nested(old))))
    assert line == f"shop.yaml: {old}: unknown key; did you mean '{suggestion}'?"


@pytest.mark.parametrize("old", REMOVED_KEYS)
def test_removed_key_says_what_to_do(old: str) -> None:
    section, _, name = old.rpartition(".")
    assert name not in fields_at(section)
    line = error_of(write("shop.yaml", yaml.safe_dump(nested(old))))
    assert line == f"shop.yaml: {old}: unknown key; {REMOVED_KEYS[old]}"


def test_renamed_key_names_its_new_key_in_an_override() -> None:
    assert error_of(write("shop.yaml"), "train.recipe=full") == (
        "train.recipe=full: train.recipe: unknown key; did you mean 'method'?"
    )


def test_key_that_moved_is_named_with_its_section(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED_KEYS, "train.port", "serve.port")
    assert error_of(write("shop.yaml", "train: {port: 1}")).endswith("did you mean 'serve.port'?")


def fields_at(dotted: str) -> set[str]:
    """Names of the fields of a section; it may be optional."""
    section: Any = Config
    for key in dotted.split("."):
        annotation = section.model_fields[key].annotation
        section = next(
            part for part in (annotation, *typing.get_args(annotation)) if hasattr(part, "model_fields")
        )
    return set(section.model_fields)


def nested(dotted: str) -> Any:
    tree: Any = 1
    for key in reversed(dotted.split(".")):
        tree = {key: tree}
    return tree


def test_unknown_key_without_a_similar_one_has_no_suggestion() -> None:
    assert error_of(write("shop.yaml", "wheels: 4")) == "shop.yaml: wheels: unknown key"


def test_suggestion_comes_from_the_chosen_kind() -> None:
    assert error_of(write("shop.yaml", "catalog: {kind: table, path: a.csv, image: x}")) == (
        "shop.yaml: catalog.image: unknown key; did you mean 'images'?"
    )


def test_missing_key_of_a_kind_is_named_without_the_kind() -> None:
    assert error_of(write("shop.yaml", "catalog: {kind: table}")) == (
        "shop.yaml: catalog.path: is required; give it a value"
    )


def test_unknown_key_with_the_name_of_a_kind_is_reported() -> None:
    assert error_of(write("shop.yaml", "index: {exact: true}")) == "shop.yaml: index.exact: unknown key"


def test_wrong_type_shows_the_value() -> None:
    assert error_of(write("shop.yaml", "train: {epochs: many}")).endswith("as a number, got 'many'")
    assert error_of(write("shop.yaml", "train: 3")) == (
        "shop.yaml: train: input should be a valid dictionary or instance of TrainConfig, got 3"
    )


def test_position_in_a_list_is_reported() -> None:
    assert error_of(write("shop.yaml", "embed: {splits: [train, tset]}")) == (
        "shop.yaml: embed.splits.1: input should be 'train', 'val' or 'test', got 'tset'"
    )


def test_rule_over_several_keys_names_the_section() -> None:
    assert error_of(write("shop.yaml", "train: {batch_size: 7, workers: 2}")) == (
        "shop.yaml: train: batch_size 7 is not a multiple of workers 2"
    )


def test_invalid_value_of_an_override_names_the_override() -> None:
    path = write("shop.yaml", "train: {epochs: 2}")
    assert error_of(path, "train.epochs=-1") == (
        "train.epochs=-1: train.epochs: input should be greater than 0, got -1"
    )


def test_invalid_value_in_an_overridden_section_names_the_override() -> None:
    path = write("shop.yaml", "train: {epochs: 2}")
    assert error_of(path, "train={epochs: -1}") == (
        "train={epochs: -1}: train.epochs: input should be greater than 0, got -1"
    )


def test_unknown_kind_of_an_override_names_the_override() -> None:
    path = write("shop.yaml", "catalog: {kind: table, path: a.csv}")
    assert error_of(path, "catalog.kind=tabel").startswith("catalog.kind=tabel: catalog")


def test_further_errors_are_counted() -> None:
    line = error_of(write("shop.yaml", "train: {epochs: 0}\nserve: {port: 0}\nname: Ä"))
    assert line.startswith("shop.yaml: name: string should match pattern")
    assert line.endswith(", got 'Ä' (and 2 more)")


def test_missing_file_suggests_a_similar_file_of_its_folder() -> None:
    write("demo.yaml")
    assert error_of("dmeo.yaml") == "dmeo.yaml: no such file; did you mean 'demo.yaml'?"
    assert error_of("nowhere/demo.yaml") == "nowhere/demo.yaml: no such file"


def test_missing_extended_file_is_named() -> None:
    Path("team").mkdir()
    assert error_of(write("team/shop.yaml", "extends: ../base.yaml")) == ("team/../base.yaml: no such file")


def test_folder_is_refused() -> None:
    Path("configs").mkdir()
    assert error_of("configs").startswith("configs: cannot be read (")


def test_invalid_yaml_is_refused_with_its_position() -> None:
    line = error_of(write("shop.yaml", "train: [1\n"))
    assert line.startswith("shop.yaml: not valid YAML: while parsing a flow sequence")
    assert "line 1, column 8" in line
    assert "\n" not in line


def test_list_at_the_top_is_refused() -> None:
    assert error_of(write("shop.yaml", "- train")) == (
        "shop.yaml: must contain sections (`key: value`), got a list instead"
    )


@pytest.mark.parametrize("word", ["train.epochs", "=3", "train.=3", ".epochs=3"])
def test_override_without_key_or_value_is_refused(word: str) -> None:
    assert (
        error_of(write("shop.yaml"), word) == f"{word}: not of the form key=value, for example train.epochs=3"
    )


def test_override_with_invalid_yaml_is_refused() -> None:
    line = error_of(write("shop.yaml"), "embed.splits=[val")
    assert line.startswith("embed.splits=[val: the value is not valid YAML: ")
