"""Configuration from files and words: what wins, and what an error says."""

from pathlib import Path

import pytest

from raysys.config import Config, load_config
from raysys.config.schema import AttributeSplit, ColumnSplit, DrawnCatalog, SimulatedLog, TableCatalog
from raysys.errors import ConfigError


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that messages name `shop.yaml`, not where it lies."""
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


def test_extended_file_is_found_beside_the_one_that_names_it() -> None:
    Path("team").mkdir()
    write("base.yaml", "name: shared")
    assert load_config(write("team/shop.yaml", "extends: ../base.yaml")).name == "shared"


def test_loop_of_files_is_refused() -> None:
    write("one.yaml", "extends: two.yaml")
    write("two.yaml", "extends: one.yaml")
    assert error_of("one.yaml") == "one.yaml: extends itself (through two.yaml); break the loop"


def test_file_that_extends_itself_is_refused() -> None:
    write("one.yaml", "extends: one.yaml")
    assert error_of("one.yaml") == "one.yaml: extends itself (through one.yaml); break the loop"


def test_extends_takes_one_file_name() -> None:
    write("one.yaml", "extends: [base.yaml]")
    assert error_of("one.yaml") == "one.yaml: extends: a file name is needed, got ['base.yaml']"


def test_changed_kind_replaces_its_section() -> None:
    write("base.yaml", "catalog: {kind: drawn, num_items: 100, seed: 3}")
    config = load_config(write("shop.yaml", "extends: base.yaml\ncatalog: {kind: table, path: items.csv}"))
    assert config.catalog == TableCatalog(path="items.csv")  # num_items would be an unknown key here


def test_same_kind_said_again_merges_its_section() -> None:
    write("base.yaml", "catalog: {kind: drawn, num_items: 100}")
    config = load_config(write("shop.yaml", "extends: base.yaml\ncatalog: {kind: drawn, seed: 3}"))
    assert config.catalog == DrawnCatalog(num_items=100, seed=3)


def test_words_win_over_files_and_hold_yaml_values() -> None:
    path = write("shop.yaml", "train: {epochs: 2, workers: 2}")
    config = load_config(
        path,
        ["train.epochs=3", "embed.splits=[val, test]", "projection.dimensions=null", "train.use_gpu=true"],
    )
    assert (config.train.epochs, config.train.workers, config.train.use_gpu) == (3.0, 2, True)
    assert config.embed.splits == ("val", "test")
    assert config.projection.dimensions is None


def test_word_with_a_changed_kind_replaces_the_section() -> None:
    path = write("shop.yaml", "pack: {split: {kind: attribute, seed: 3}}")
    config = load_config(path, ["pack.split.kind=column", "pack.split.column=part"])
    assert config.pack.split == ColumnSplit(column="part")


def test_word_that_changes_a_kind_may_stand_behind_the_words_of_its_section() -> None:
    config = load_config(write("shop.yaml"), ["catalog.path=a.csv", "catalog.kind=table"])
    assert config.catalog == TableCatalog(path="a.csv")


def test_map_with_a_name_like_a_kind_is_not_mixed_with_its_default() -> None:
    config = load_config(write("shop.yaml", "evaluate: {log: {weights: {colour: 1.0}}}"))
    assert config.evaluate.log == SimulatedLog(weights={"colour": 1.0})


def test_section_without_a_kind_is_of_the_default_kind() -> None:
    config = load_config(write("shop.yaml"), ["pack.split.val_fraction=0.3", "catalog.num_items=100"])
    assert config.pack.split == AttributeSplit(val_fraction=0.3)
    assert config.catalog == DrawnCatalog(num_items=100)


@pytest.mark.parametrize("number", ["1.0e-3", "1e-3", "0.001"])
def test_every_spelling_of_a_number_is_a_number(number: str) -> None:
    path = write("shop.yaml", f"train: {{learning_rate: {number}}}")  # YAML 1.1 reads 1e-3 as text
    assert load_config(path).train.learning_rate == 0.001
    assert load_config(write("none.yaml"), [f"train.learning_rate={number}"]).train.learning_rate == 0.001


def test_text_that_is_no_number_is_refused() -> None:
    assert error_of(write("shop.yaml"), "train.learning_rate=fast") == (
        "train.learning_rate=fast: train.learning_rate: input should be a valid number, "
        "unable to parse string as a number, got 'fast'"
    )


def test_unknown_key_names_the_file_and_a_near_one() -> None:
    write("base.yaml", "train: {lerning_rate: 1.0}")
    assert error_of(write("shop.yaml", "extends: base.yaml\ntrain: {epochs: 1}")) == (
        "base.yaml: train.lerning_rate: unknown key; did you mean 'learning_rate'?"
    )


def test_unknown_section_without_a_near_one_has_no_guess() -> None:
    assert error_of(write("shop.yaml", "wheels: 4")) == "shop.yaml: wheels: unknown key"


def test_unknown_key_of_a_kind_is_guessed_among_its_fields_without_the_tag() -> None:
    assert error_of(write("shop.yaml", "catalog: {kind: table, path: a.csv, image: x}")) == (
        "shop.yaml: catalog.image: unknown key; did you mean 'images'?"
    )


def test_missing_key_of_a_kind_is_asked_for_without_the_tag() -> None:
    assert error_of(write("shop.yaml", "catalog: {kind: table}")) == (
        "shop.yaml: catalog.path: is needed; give it a value"
    )


def test_unknown_key_that_is_named_like_a_kind_is_still_named() -> None:
    assert error_of(write("shop.yaml", "index: {exact: true}")) == "shop.yaml: index.exact: unknown key"


def test_wrong_type_shows_what_was_given() -> None:
    assert error_of(write("shop.yaml", "train: {epochs: many}")).endswith("as a number, got 'many'")
    assert error_of(write("shop.yaml", "train: 3")) == (
        "shop.yaml: train: input should be a valid dictionary or instance of TrainConfig, got 3"
    )


def test_place_in_a_list_is_named() -> None:
    assert error_of(write("shop.yaml", "embed: {splits: [train, tset]}")) == (
        "shop.yaml: embed.splits.1: input should be 'train', 'val' or 'test', got 'tset'"
    )


def test_rule_over_several_keys_is_said_in_its_own_words() -> None:
    assert error_of(write("shop.yaml", "train: {batch_size: 7, workers: 2}")) == (
        "shop.yaml: train: batch_size 7 is no multiple of 2 workers"
    )


def test_value_from_a_word_is_blamed_on_the_word() -> None:
    path = write("shop.yaml", "train: {epochs: 2}")
    assert error_of(path, "train.epochs=-1") == (
        "train.epochs=-1: train.epochs: input should be greater than 0, got -1"
    )


def test_value_inside_a_word_s_section_is_blamed_on_the_word() -> None:
    path = write("shop.yaml", "train: {epochs: 2}")
    assert error_of(path, "train={epochs: -1}") == (
        "train={epochs: -1}: train.epochs: input should be greater than 0, got -1"
    )


def test_unknown_kind_from_a_word_is_blamed_on_the_word() -> None:
    path = write("shop.yaml", "catalog: {kind: table, path: a.csv}")
    assert error_of(path, "catalog.kind=tabel").startswith("catalog.kind=tabel: catalog")


def test_further_errors_are_counted() -> None:
    line = error_of(write("shop.yaml", "train: {epochs: 0}\nserve: {port: 0}\nname: Ä"))
    assert line.startswith("shop.yaml: name: string should match pattern")
    assert line.endswith(", got 'Ä' (and 2 more)")


def test_missing_file_is_guessed_among_its_neighbours() -> None:
    write("demo.yaml")
    assert error_of("dmeo.yaml") == "dmeo.yaml: no such file; did you mean 'demo.yaml'?"
    assert error_of("nowhere/demo.yaml") == "nowhere/demo.yaml: no such file"


def test_missing_extended_file_is_named() -> None:
    Path("team").mkdir()
    assert error_of(write("team/shop.yaml", "extends: ../base.yaml")) == ("team/../base.yaml: no such file")


def test_folder_is_not_read() -> None:
    Path("configs").mkdir()
    assert error_of("configs").startswith("configs: cannot be read (")


def test_text_that_is_not_yaml_is_refused_with_its_place() -> None:
    line = error_of(write("shop.yaml", "train: [1\n"))
    assert line.startswith("shop.yaml: not YAML: while parsing a flow sequence")
    assert "line 1, column 8" in line
    assert "\n" not in line


def test_list_at_the_top_is_refused() -> None:
    assert (
        error_of(write("shop.yaml", "- train")) == "shop.yaml: sections are needed (`key: value`), got list"
    )


@pytest.mark.parametrize("word", ["train.epochs", "=3", "train.=3", ".epochs=3"])
def test_word_that_is_no_assignment_is_refused(word: str) -> None:
    assert (
        error_of(write("shop.yaml"), word) == f"{word}: not of the form key=value, for example train.epochs=3"
    )


def test_word_whose_value_is_not_yaml_is_refused() -> None:
    line = error_of(write("shop.yaml"), "embed.splits=[val")
    assert line.startswith("embed.splits=[val: the value is not YAML: ")
