"""`configs/README.md` and `raysys config --reference`."""

from pathlib import Path

import pytest

import raysys
from raysys import cli
from raysys.config.reference import REMEDY, reference

CONFIGS = Path(raysys.__file__).parent.parent / "configs"


def test_committed_reference_is_up_to_date() -> None:
    committed = (CONFIGS / "README.md").read_text(encoding="utf-8")
    assert committed == reference(), f"the schema has changed; run: {REMEDY}"


def test_command_prints_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--reference"]) == 0
    assert capsys.readouterr().out == reference()


def test_every_shipped_file_is_listed() -> None:
    assert [path.name for path in CONFIGS.glob("*.yaml") if f"| `{path.name}` |" not in reference()] == []


@pytest.mark.parametrize(
    "row",
    [
        '| `name` | text | `"siglip"` | Name of the run',
        "| `train.epochs` | number > 0 | `5.0` | Passes over",
        "| `train.min_workers` | integer > 0 or null | `null` | Elastic training",
        "| `catalog.path` | text | required | A file, a glob pattern",
        '| `embed.splits` | list of `train` or `val` or `test` | `["train", "val", "test"]` |',
        '| `evaluate.log.weights` | map of names to number > 0 | `{"kind": 0.6,',
        "| `train.lora.rank` | integer > 0 | `16` | Rank of an update. |",
    ],
)
def test_row_has_key_type_default_and_meaning(row: str) -> None:
    assert row in reference()


def test_every_kind_of_a_section_has_a_table() -> None:
    headings = [line for line in reference().splitlines() if line.startswith("#")]
    assert [line for line in headings if "pack.split" in line] == [
        "### pack.split",
        "#### pack.split, kind: column",
        "#### pack.split, kind: attribute",
        "#### pack.split, kind: group",
        "#### pack.split, kind: time",
    ]
