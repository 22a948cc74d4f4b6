"""Read a YAML file and `key=value` overrides into a checked `Config`; errors name the key and the remedy.

A file may extend another one: `extends: base.yaml`, relative to its own folder. Later values replace earlier
ones key by key, and a different `kind` replaces the complete section. The origin of each value (file or
override) is recorded, so that errors can name it.
"""

from __future__ import annotations

import os
import types
import typing
from pathlib import Path
from typing import Any, TypeAlias

import pydantic
import yaml

from raysys.config.schema import Config
from raysys.config.store import without_password
from raysys.errors import ConfigError, did_you_mean

Tree: TypeAlias = dict[str, Any]
Origins: TypeAlias = dict[str, str]
ConfigT = typing.TypeVar("ConfigT", bound=Config)

# Former keys, only for error messages: the old name is not accepted.
RENAMED_KEYS = {
    "pack.duplicates.photo_bits": "pack.duplicates.max_hash_distance",
    "train.recipe": "train.method",
    "train.clip_norm": "train.max_grad_norm",
    "train.max_scale": "train.max_logit_scale",
    "train.scale_learning_rate": "train.logit_scale_learning_rate",
    "train.changed": "train.on_config_change",
    "train.robust.guard": "train.robust.retention_set",
    "train.robust.guard_items": "train.robust.retention_items",
    "train.robust.max_guard_drop": "train.robust.max_retention_drop",
    "train.lora.modules": "train.lora.target_modules",
    "train.false_negatives.similar_photos": "train.false_negatives.photo_cosine_threshold",
    "train.validation.items": "train.validation.max_items",
    "index.hnsw_links": "index.hnsw_m",
    "index.hnsw_build_effort": "index.ef_construction",
    "index.hnsw_search_effort": "index.ef_search",
    "evaluate.shelf": "evaluate.attribute_precision",
    "evaluate.grid_queries": "evaluate.neighbour_grid_queries",
}
# Former keys without a successor, with what to do instead.
REMOVED_KEYS = {
    "train.validation.num_gpus": "workers validate on their own devices; remove it",
    "train.validation.timeout_s": "workers validate between two steps; remove it",
    "train.loss_exchange": "every worker gathers all captions; remove it",
}


@typing.overload
def load_config(path: str | None, overrides: list[str] | None = None) -> Config: ...
@typing.overload
def load_config(path: str | None, overrides: list[str] | None, model: type[ConfigT]) -> ConfigT: ...
def load_config(path: str | None, overrides: list[str] | None = None, model: type[Config] = Config) -> Config:
    """The resolved configuration; without a path that of the defaults.

    `model` is the schema: `Config`, or a subclass with further sections.
    Raises: ConfigError in one line `where: key: what; do`, for a file, a key or a value that does not fit.
    """
    tree, origins = _load_file(Path(path), ()) if path else ({}, {})
    # A different `kind` resets its section: apply these overrides first, so that their order does not matter.
    for word in sorted(overrides or [], key=lambda word: not word.partition("=")[0].endswith(".kind")):
        keys, value = _parse_override(word)
        override = _nested(keys, value)
        tree = merge(tree, override)
        dotted = ".".join(keys)
        origins |= {key: word for key in _dotted_keys(override) if key.startswith(dotted)}
    try:
        return model.model_validate(_with_default_kinds(tree, Config().model_dump()))
    except pydantic.ValidationError as error:
        explained = _explain(error, origins, path or "settings", model)
        raise ConfigError(without_password(explained)) from error


def merge(base: Tree, top: Tree) -> Tree:
    """`top` merged over `base`, section by section; a section with a different `kind` is replaced."""
    merged = dict(base)
    for key, value in top.items():
        below = merged.get(key)
        if (
            isinstance(value, dict)
            and isinstance(below, dict)
            and value.get("kind", below.get("kind")) == below.get("kind")
        ):
            merged[key] = merge(below, value)
        else:
            merged[key] = value
    return merged


def _load_file(path: Path, opened_by: tuple[Path, ...]) -> tuple[Tree, Origins]:
    absolute = Path(os.path.abspath(path))
    if absolute in opened_by:
        raise ConfigError(f"{path}: extends itself (through {opened_by[-1].name}); break the loop")
    tree = _read_yaml(path)
    parent = tree.pop("extends", None)
    own = {dotted: str(path) for dotted in _dotted_keys(tree)}
    if parent is None:
        return tree, own
    if not isinstance(parent, str):
        raise ConfigError(f"{path}: extends: must be one file name, got {parent!r}")
    base, origins = _load_file(path.parent / parent, (*opened_by, absolute))
    return merge(base, tree), {**origins, **own}


def _read_yaml(path: Path) -> Tree:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        if "=" in path.name:
            raise ConfigError(
                f"{path}: no such file; a YAML file is expected before settings, "
                f"for example: raysys config configs/demo.yaml {path}"
            ) from error
        neighbours = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise ConfigError(f"{path}: no such file{did_you_mean(path.name, neighbours)}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    except (OSError, ValueError) as error:  # a path with NUL, or text that is not UTF-8
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"{path}: cannot be read ({reason}); give a YAML file in UTF-8") from error
    if not isinstance(tree, dict | None):
        raise ConfigError(
            f"{path}: must contain sections (`key: value`), got a {type(tree).__name__} instead"
        )
    return tree or {}


def _parse_override(word: str) -> tuple[list[str], Any]:
    key, equals, text = word.partition("=")
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{without_password(word)}: not of the form key=value, for example train.epochs=3")
    try:
        return key.split("."), yaml.safe_load(text)
    except yaml.YAMLError as error:
        # Not the complete error: it quotes a part of the value, which may end within a password.
        problem = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ConfigError(f"{without_password(word)}: the value is not valid YAML: {problem}") from error


def _with_default_kinds(tree: Tree, defaults: Tree, keys: tuple[str, ...] = ()) -> Tree:
    """The tree, with the default `kind` in sections that do not set one."""
    filled = {}
    for key, value in tree.items():
        default, at = defaults.get(key), (*keys, key)
        if isinstance(value, dict) and isinstance(default, dict):
            value = _with_default_kinds(value, default, at)
            # Only sections with a field `kind`: a map of names may have a key of that name, too.
            value = {"kind": default["kind"], **value} if "kind" in _fields_at(list(at)) else value
        filled[key] = value
    return filled


def _nested(keys: list[str], value: Any) -> Tree:
    for key in reversed(keys):
        value = {key: value}
    return typing.cast(Tree, value)


def _dotted_keys(tree: Tree, prefix: str = "") -> list[str]:
    dotted: list[str] = []
    for key, value in tree.items():
        dotted.append(f"{prefix}{key}")
        if isinstance(value, dict):
            dotted += _dotted_keys(value, f"{prefix}{key}.")
    return dotted


def _explain(error: pydantic.ValidationError, origins: Origins, path: str, model: type[Config]) -> str:
    first, *others = error.errors()
    keys = _without_union_tags(first["loc"])
    if first["type"] == "union_tag_invalid":
        keys = [*keys, "kind"]
    dotted = ".".join(keys)
    line = f"{_origin(keys, origins, path)}: {dotted or 'configuration'}: {_reason(first, keys, model)}"
    return line + (f" (and {len(others)} more)" if others else "")


def _origin(keys: list[str], origins: Origins, path: str) -> str:
    for length in range(len(keys), 0, -1):
        if origin := origins.get(".".join(keys[:length])):
            return origin
    return path


def _reason(detail: Any, keys: list[str], model: type[Config]) -> str:
    if detail["type"] == "extra_forbidden":
        return f"unknown key{_suggestion(keys, model)}"
    if detail["type"] == "missing":
        return "is required; give it a value"
    message = detail["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    return message if detail["type"] == "value_error" else f"{message}, got {detail['input']!r}"


def _suggestion(keys: list[str], model: type[Config]) -> str:
    """A renamed key's new name, dotted if it has moved to another section; else a similar key.

    For a removed key what to do instead.
    """
    if advice := REMOVED_KEYS.get(".".join(keys)):
        return f"; {advice}"
    new = RENAMED_KEYS.get(".".join(keys))
    if new is None:
        return did_you_mean(keys[-1], _fields_at(keys[:-1], model))
    section, _, name = new.rpartition(".")
    has_moved = section != ".".join(keys[:-1])
    return f"; did you mean '{new if has_moved else name}'?"


def _without_union_tags(loc: tuple[int | str, ...]) -> list[str]:
    """The keys as the user wrote them: Pydantic adds the `kind` of a union to the location."""
    keys: list[str] = []
    for part in loc:
        if not (keys and part in _kinds_at(keys)):
            keys.append(str(part))
    return keys


def _kinds_at(keys: list[str]) -> set[str]:
    models = _models_at(keys)
    return {model.model_fields["kind"].default for model in models} if len(models) > 1 else set()


def _fields_at(keys: list[str], root: type[Config] = Config) -> list[str]:
    return [name for model in _models_at(keys, root) for name in model.model_fields]


def _models_at(keys: list[str], root: type[Config] = Config) -> list[type[pydantic.BaseModel]]:
    models: list[type[pydantic.BaseModel]] = [root]
    for key in keys:
        fields = [model.model_fields[key] for model in models if key in model.model_fields]
        models = [inner for found in fields for inner in _models_in(found.annotation)]
    return models


def _models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []
