"""The READMEs are true: paths exist, commands and settings are real, and the front page fits on a screen or two."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

import raysys
from raysys import cli
from raysys.bench.config import BenchRunConfig
from raysys.config.load import REMOVED_KEYS, RENAMED_KEYS

ROOT = Path(raysys.__file__).parent.parent
READMES = sorted(
    path
    for path in ROOT.rglob("README.md")
    if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
SECTIONS = set(BenchRunConfig.model_fields)
FILE_ENDINGS = (".py", ".yaml", ".toml", ".md", ".js", ".html", ".css", ".j2", ".txt")
# Files of artifacts and of users, which are not in the repository.
NOT_IN_THE_REPOSITORY = re.compile(
    r"(items|metadata|config|report|frontier|my|FILE|x|out|index|shop|company|a|b)(-\*)?\.\w+$|.*[<>{}*].*|/.*"
)

# A dotted name alone, or with a value: `train.epochs`, `train.epochs=3`, `catalog.kind: table`.
SETTING = re.compile(r"([a-z]\w*(?:\.[a-z]\w*)+)(?:[=:].*)?$")

readmes = pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))


def code_spans(readme: Path) -> list[str]:
    """The backticked words of the prose; code blocks are left out."""
    text = re.sub(r"```.*?```", "", readme.read_text(encoding="utf-8"), flags=re.S)
    text = "\n".join(line for line in text.split("\n") if not line.startswith("    "))
    return re.findall(r"`([^`]+)`", text)


def code_lines(readme: Path) -> list[str]:
    """The lines of indented and fenced code blocks, with continued lines joined."""
    text = readme.read_text(encoding="utf-8")
    fenced = [
        line for block in re.findall(r"```\w*\n(.*?)```", text, flags=re.S) for line in block.split("\n")
    ]
    indented = [line.strip() for line in text.split("\n") if line.startswith("    ")]
    return [line for line in "\n".join([*fenced, *indented]).replace("\\\n", " ").split("\n") if line]


@readmes
def test_linked_files_exist(readme: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)\)", readme.read_text(encoding="utf-8"))
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (readme.parent / link).exists()] == []


@readmes
def test_named_files_exist(readme: Path) -> None:
    named = [span for span in code_spans(readme) if re.fullmatch(r"[\w./-]+", span)]
    paths = [span for span in named if span.endswith(FILE_ENDINGS) and not NOT_IN_THE_REPOSITORY.match(span)]
    assert [path for path in paths if not exists(path, readme)] == []


def exists(path: str, readme: Path) -> bool:
    folders = [readme.parent, ROOT, ROOT / "raysys", ROOT / "configs"]
    return any((folder / path).exists() for folder in folders) or any((ROOT / "raysys").rglob(path))


@readmes
def test_named_commands_exist(readme: Path) -> None:
    spans = [*code_spans(readme), *code_lines(readme)]
    named = [match[1] for span in spans if (match := re.match(r"(?:\$ )?raysys ([a-z]\w*)", span))]
    assert [name for name in named if name not in commands()] == []


@readmes
def test_named_options_exist(readme: Path) -> None:
    spans = [*code_spans(readme), *code_lines(readme)]
    for span in spans:
        if match := re.match(r"(?:\$ )?raysys ([a-z]\w*)(.*)", span):
            options = re.findall(r"(?<=\s)--[a-z][\w-]*", match[2].split("#")[0])
            assert [option for option in options if option not in commands()[match[1]]] == [], span


@readmes
def test_named_settings_exist(readme: Path) -> None:
    spans = [span for span in code_spans(readme) if SETTING.match(span) and not is_file(span)]
    overrides = [
        word for line in code_lines(readme) if "raysys " in line for word in line.split() if "=" in word
    ]
    keys = [match[1] for word in [*spans, *overrides] if (match := SETTING.match(word))]
    assert sorted({key for key in keys if key.partition(".")[0] in SECTIONS and key not in settings()}) == []


def is_file(span: str) -> bool:
    return span.endswith((*FILE_ENDINGS, ".safetensors", ".json", ".png", ".db"))


def test_front_page_has_at_most_750_words() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 750


def test_every_folder_of_the_package_is_on_the_front_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    folders = [path.parent.name for path in (ROOT / "raysys").glob("*/__init__.py")]
    assert [name for name in folders if f"{name}/" not in text] == []


def test_every_command_is_on_the_front_page() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in commands() if f"raysys {name}" not in text] == []


@readmes
def test_no_former_setting_is_named(readme: Path) -> None:
    text = readme.read_text(encoding="utf-8")
    assert [
        key for key in [*RENAMED_KEYS, *REMOVED_KEYS] if re.search(rf"`{re.escape(key)}\b(?!\.)", text)
    ] == []


def commands() -> dict[str, str]:
    """Command -> its help text."""
    (action,) = (one for one in cli._parser()._actions if isinstance(one, argparse._SubParsersAction))
    return {name: parser.format_help() for name, parser in action.choices.items()}


def settings() -> set[str]:
    """The dotted names of all settings and sections, of every kind of a section."""
    return set(_settings(BenchRunConfig, ""))


def _settings(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield f"{prefix}{name}"
        for inner in _models(field.annotation):
            yield from _settings(inner, f"{prefix}{name}.")


def _models(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]
