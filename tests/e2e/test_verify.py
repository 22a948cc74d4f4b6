"""`raysys verify` as a command: exit status, table, JSON, and the clean copy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from raysys import cli
from tests.shards_by_hand import cut, foreign_sample, members_of, photo, write_shard_set, write_tar


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Two tars: one cut between two samples, one with a sample without text."""
    first = write_tar(tmp_path / "data" / "1.tar", [foreign_sample("a"), foreign_sample("b")])
    write_tar(tmp_path / "data" / "2.tar", [foreign_sample("c"), {"__key__": "d", "jpg": photo()}])
    cut(first, members_of(first)["b.jpg"].offset - 512)
    return tmp_path / "data"


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, list[str], str]:
    """Exit status, lines of stdout, and stderr."""
    status = cli.main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return status, captured.out.splitlines(), captured.err


def test_healthy_shards_end_with_their_uri(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_tar(tmp_path / "1.tar", [foreign_sample("a"), foreign_sample("b")])
    status, out, err = call(capsys, "verify", tmp_path)
    assert (status, err) == (0, "")
    assert out[-1] == str(tmp_path)
    (row,) = (line for line in out if line.strip().startswith(str(path)))
    assert row.split()[1:] == ["2", f"{path.stat().st_size:,}", "healthy"]


def test_damage_is_printed_as_a_table_with_status_1(
    damaged: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = call(capsys, "verify", damaged)
    end = (damaged / "1.tar").stat().st_size
    assert status == 1
    assert out[-1] == str(damaged)
    text = "\n".join(out)
    assert "1 no_end" in text
    assert "1 no_text" in text
    assert f"no_end: {damaged}/1.tar#{end}: the end-of-archive marker is missing" in text
    assert err == (
        f"raysys: {damaged}: 2 findings of damage in 2 of 3 shards and folders (first {damaged}/1.tar); "
        "`raysys verify .. --repair OUT` writes a clean copy\n"
    )


def test_json_has_counts_shards_and_findings(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "verify", damaged, "--json")
    assert status == 1
    (line,) = out
    result = json.loads(line)
    assert (result["uri"], result["is_healthy"], result["repaired"]) == (str(damaged), False, None)
    assert (result["num_shards"], result["num_items"]) == (2, 3)
    assert result["counts"] == {"no_end": 1, "no_text": 1}
    assert [shard["counts"] for shard in result["shards"]] == [{"no_end": 1}, {"no_text": 1}]
    assert result["findings"][1]["key"] == "d"
    assert result["findings"][1]["is_damage"] is True


def test_repair_writes_a_healthy_copy(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out_folder = tmp_path / "clean"
    status, out, _ = call(capsys, "verify", damaged, "--repair", out_folder)
    assert status == 0
    assert out[-1] == str(out_folder)
    assert "kept 2 samples, lost 1 samples and 1 unidentified parts; ledger.parquet lists the losses" in out
    assert call(capsys, "verify", out_folder)[0] == 0
    status, out, err = call(capsys, "verify", damaged, "--repair", out_folder)
    assert (status, out) == (2, [])
    assert err.startswith(f"raysys: --repair {out_folder}: not empty;")


def test_settings_are_accepted_as_arguments(damaged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = call(capsys, "verify", damaged / "2.tar", "pack.max_megapixels=0.00001", "--json")
    assert status == 1
    assert json.loads(out[0])["counts"] == {"too_many_pixels": 2, "no_text": 1}


def test_configuration_names_its_shard_sets(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "mine.yaml"
    config.write_text(yaml.safe_dump({"root": str(tmp_path / "root")}))
    status, out, err = call(capsys, "verify", config)
    assert (status, out) == (2, [])
    assert err == (
        f"raysys: {tmp_path / 'root'}/shards/train: no ShardSet here (no manifest.json); "
        "make it with `raysys pack`\n"
    )
    for split, keys in {"train": "ab", "val": "c", "test": "d"}.items():
        write_shard_set(tmp_path / "root" / "shards" / split, keys, split=split)
    status, out, _ = call(capsys, "verify", config)
    assert (status, out[-1]) == (0, f"{tmp_path / 'root'}/shards")
    write_shard_set(tmp_path / "root" / "shards" / "test", "a", split="test")
    status, out, _ = call(capsys, "verify", config, "--json")
    assert status == 1
    assert json.loads(out[0])["counts"] == {"repeated_key": 1}  # an item in two splits


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file or folder; check the path"),
        (["x.yaml", "more.tar"], "verify: x.yaml is a configuration and cannot be combined with paths"),
        (["root=here"], "verify: no shards named; give a configuration, or paths of shards"),
        ([".", "pack.max_megapixel=1"], "unknown key; did you mean 'max_megapixels'?"),
        (["."], ".: no tar there; give a folder with tars"),
    ],
)
def test_wrong_arguments_end_with_one_line_and_status_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, "verify", *arguments)
    assert (status, out) == (2, [])
    assert err.startswith("raysys: ")
    assert message in err
    assert err.count("\n") == 1


def test_names_in_a_tar_cannot_forge_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "[red]data\n/evil"
    keys = ["a\nraysys: all healthy", "b\x1b[2J", "c\u202e", "[bold]日本語 👗"]
    write_tar(folder / "1.tar", [{"__key__": key, "jpg": photo()} for key in keys])
    status, out, err = call(capsys, "verify", folder)
    assert status == 1
    assert err.count("\n") == 1
    assert r"[red]data\n/evil" in err
    shown = [line for line in out if line.startswith("no_text: ")]
    assert len(shown) == 3
    assert all(line.isprintable() for line in [*out, err.rstrip("\n")])
    assert not any(line.startswith("raysys: all healthy") for line in out)
    _, (line,), _ = call(capsys, "verify", folder, "--json")
    assert [finding["key"] for finding in json.loads(line)["findings"][-4:]] == keys
    assert line.isascii()


def test_unknown_words_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["verify", "x", "--x\x1b[2J\nraysys:healthy"])
    err = capsys.readouterr().err
    assert "\x1b" not in err
    assert "\nraysys:healthy" not in err
