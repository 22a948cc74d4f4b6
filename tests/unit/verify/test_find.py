"""A word means tars: by their folder, their name, a pattern or braces."""

from __future__ import annotations

from pathlib import Path

import pytest

from raysys.errors import MissingError
from raysys.verify.find import find_sources
from tests.shards_by_hand import foreign, write_shard_set, write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two parts of a foreign set, and a ShardSet."""
    for name in ("part-0/0.tar", "part-0/1.tar", "part-1/0.tar"):
        write_tar(tmp_path / name, [foreign("a")])
    (tmp_path / "part-0" / "0_stats.json").write_text("{}")
    write_shard_set(tmp_path / "set", "ab", "cd")
    return tmp_path


def found(*words: Path | str) -> dict[str, list[str]]:
    """Folder -> the tars meant in it, by their last names."""
    return {
        source.uri.rpartition("/")[2]: [piece.uri.rpartition("/")[2] for piece in source.pieces]
        for source in find_sources([str(word) for word in words])
    }


def test_folder_means_all_tars_below_it(folder: Path) -> None:
    wanted = {"part-0": ["0.tar", "1.tar"], "part-1": ["0.tar"], "set": ["00000.tar", "00001.tar"]}
    assert found(folder) == wanted
    assert found(f"{folder}/") == wanted


def test_tars_of_one_folder_are_one_source(folder: Path) -> None:
    assert found(folder / "part-0/1.tar", folder / "part-0/0.tar", folder / "part-1/0.tar") == {
        "part-0": ["1.tar", "0.tar"],
        "part-1": ["0.tar"],
    }


def test_tar_that_is_named_twice_is_meant_once(folder: Path) -> None:
    assert found(folder / "part-0", folder / "part-0/1.tar") == {"part-0": ["0.tar", "1.tar"]}
    assert found(folder / "set/00000.tar", folder / "set") == {"set": ["00000.tar", "00001.tar"]}


@pytest.mark.parametrize("pattern", ["part-?/0.tar", "part-[01]/0.tar", "part-{0..1}/0.tar"])
def test_pattern_means_what_it_matches(folder: Path, pattern: str) -> None:
    assert found(f"{folder}/{pattern}") == {"part-0": ["0.tar"], "part-1": ["0.tar"]}


def test_single_tar_of_a_shard_set_keeps_its_promise(folder: Path) -> None:
    (source,) = find_sources([f"{folder}/set/00001.tar"])
    assert source.manifest is None  # not the whole set: others are not missed
    assert source.pieces[0].promise is not None
    assert source.pieces[0].promise.num_items == 2


def test_shard_set_whose_tars_are_gone_is_still_one(folder: Path) -> None:
    for path in (folder / "set").glob("*.tar"):
        path.unlink()
    assert found(folder / "set") == {"set": ["00000.tar", "00001.tar"]}


def test_manifest_of_another_tool_makes_no_shard_set(folder: Path) -> None:
    (folder / "part-1" / "manifest.json").write_text('["0.tar", "1.tar"]')
    (source,) = find_sources([f"{folder}/part-1"])
    assert (source.manifest, source.findings, len(source.pieces)) == (None, (), 1)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("absent", "absent: no such file or folder; check the path"),
        ("part-0/{1..2}.tar", "part-0/2.tar: no such file or folder; check the path"),
        (
            "part-0/x*.tar",
            "x*.tar: no tar there; give a folder with tars, a tar, or a pattern such as '*.tar'",
        ),
        ("empty", "empty: no tar there; give a folder with tars"),
    ],
)
def test_word_that_means_nothing_is_refused(folder: Path, word: str, message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(MissingError) as caught:
        find_sources([f"{folder}/{word}"])
    assert message in str(caught.value)
