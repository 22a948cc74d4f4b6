"""Checks of the whole project: configurations load, settings are read, commands have help, linters and layers pass."""

import argparse
import re
import subprocess
import sys
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pydantic
import pytest

import raysys
from raysys import cli, pipeline
from raysys.bench.config import BenchRunConfig
from raysys.commands import demo_config
from raysys.config import Config, load_config

ROOT = Path(raysys.__file__).parent.parent
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_loads(path: Path) -> None:
    model = BenchRunConfig if path.name == "bench.yaml" else Config
    assert isinstance(load_config(str(path), [], model), model)


def test_demo_is_among_the_configurations() -> None:
    assert demo_config() in CONFIGS


def test_every_key_is_read_somewhere() -> None:
    package = ROOT / "raysys"
    sources = (path for path in package.rglob("*.py") if path.parent != package / "config")
    read = set(re.findall(r"\.([a-z]\w*)", "\n".join(path.read_text(encoding="utf-8") for path in sources)))
    keys = [
        (section.__name__, key) for section in sections_of(BenchRunConfig) for key in section.model_fields
    ]
    assert len(keys) > 80
    assert [f"{section}.{key}" for section, key in keys if key not in read] == []


@pytest.mark.parametrize(
    "command", ["run", *pipeline.STAGES, "verify", "demo", "serve", "bench", "submit", "config"]
)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert commands()[command]
    with pytest.raises(SystemExit) as caught:
        cli.main([command, "--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: raysys {command} ")


def test_ruff_finds_nothing() -> None:
    require_success(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_would_format_nothing() -> None:
    require_success(sys.executable, "-m", "ruff", "format", "--check", ".")


@pytest.mark.timeout(600)  # three minutes without a cache, more beside other tests
def test_mypy_finds_nothing() -> None:
    require_success(sys.executable, "-m", "mypy")


def test_imports_follow_the_layers() -> None:
    script = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    require_success(sys.executable, "-c", script, "--no-cache")


def require_success(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{done.stdout[-4000:]}{done.stderr[-4000:]}"


def commands() -> dict[str, str]:
    """Command -> its line of help."""
    (action,) = (one for one in cli._parser()._actions if isinstance(one, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
    return {name: helps.get(name, "") for name in action.choices}


def sections_of(model: type[pydantic.BaseModel]) -> Iterator[type[pydantic.BaseModel]]:
    """The model and all sections below it."""
    yield model
    for field in model.model_fields.values():
        for inner in models_in(field.annotation):
            yield from sections_of(inner)


def models_in(annotation: Any) -> list[type[pydantic.BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel):
        return [annotation]
    return [model for part in typing.get_args(annotation) for model in models_in(part)]
