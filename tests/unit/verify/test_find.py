"""Shards are named by their folder, their path, a pattern or braces."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from raysys import artifacts
from raysys.errors import InputError, MissingError
from raysys.verify.find import find_sources, open_shard_set
from tests.shards_by_hand import foreign_sample, write_shard_set, write_tar


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two folders of a third-party WebDataset, and a ShardSet."""
    for name in ("part-0/0.tar", "part-0/1.tar", "part-1/0.tar"):
        write_tar(tmp_path / name, [foreign_sample("a")])
    (tmp_path / "part-0" / "0_stats.json").write_text("{}")
    write_shard_set(tmp_path / "set", "ab", "cd")
    return tmp_path


def find(*paths: Path | str) -> dict[str, list[str]]:
    """Name of a folder -> names of the tars in it that the paths name."""
    return {
        source.uri.rpartition("/")[2]: [shard.uri.rpartition("/")[2] for shard in source.shards]
        for source in find_sources([str(path) for path in paths])
    }


def test_folder_names_all_tars_below_it(folder: Path) -> None:
    expected = {"part-0": ["0.tar", "1.tar"], "part-1": ["0.tar"], "set": ["00000.tar", "00001.tar"]}
    assert find(folder) == expected
    assert find(f"{folder}/") == expected


def test_tars_of_one_folder_are_one_source(folder: Path) -> None:
    assert find(folder / "part-0/1.tar", folder / "part-0/0.tar", folder / "part-1/0.tar") == {
        "part-0": ["1.tar", "0.tar"],
        "part-1": ["0.tar"],
    }


def test_tar_that_is_named_twice_is_listed_once(folder: Path) -> None:
    assert find(folder / "part-0", folder / "part-0/1.tar") == {"part-0": ["0.tar", "1.tar"]}
    assert find(folder / "set/00000.tar", folder / "set") == {"set": ["00000.tar", "00001.tar"]}


@pytest.mark.parametrize("pattern", ["part-?/0.tar", "part-[01]/0.tar", "part-{0..1}/0.tar"])
def test_pattern_names_the_tars_that_it_matches(folder: Path, pattern: str) -> None:
    assert find(f"{folder}/{pattern}") == {"part-0": ["0.tar"], "part-1": ["0.tar"]}


@pytest.mark.parametrize("name", ["part-{0..1}", "{a", "a}{b,"])
def test_folder_with_braces_in_its_name_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "0.tar").touch()
    (source,) = find_sources([f"{tmp_path}/{name}"])
    assert source.uri == f"{tmp_path}/{name}"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("{0..999999999}.tar", "its braces stand for 1,000,000,000 paths; name at most 1,000,000"),
        ("{0..9999}-{9999..0}.tar", "its braces stand for 100,000,000 paths; name at most 1,000,000"),
        ("{0..3.tar", "no such file, and its braces are unbalanced; close them"),
        ("{a,{b}.tar", "no such file, and its braces are unbalanced; close them"),
    ],
)
def test_braces_that_cannot_be_expanded_are_an_error(pattern: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        find_sources([f"/data/{pattern}"])
    assert str(caught.value) == f"/data/{pattern}: {message}"


def test_single_tar_of_a_shard_set_is_checked_against_the_manifest(folder: Path) -> None:
    (source,) = find_sources([f"{folder}/set/00001.tar"])
    assert source.manifest is None  # not the complete set: the other tar is not reported as absent
    assert source.shards[0].has_manifest
    assert source.shards[0].num_items == 2


def test_shard_set_without_its_tars_is_still_found(folder: Path) -> None:
    for path in (folder / "set").glob("*.tar"):
        path.unlink()
    assert find(folder / "set") == {"set": ["00000.tar", "00001.tar"]}


def test_manifest_of_another_tool_is_ignored(folder: Path) -> None:
    (folder / "part-1" / "manifest.json").write_text('["0.tar", "1.tar"]')
    (source,) = find_sources([f"{folder}/part-1"])
    assert (source.manifest, source.findings, len(source.shards)) == (None, (), 1)


@pytest.mark.parametrize(
    ("path", "message"),
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
def test_path_without_tars_is_refused(folder: Path, path: str, message: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(MissingError) as caught:
        find_sources([f"{folder}/{path}"])
    assert message in str(caught.value)


@pytest.fixture
def versioned(tmp_path: Path) -> Path:
    """A ShardSet as `raysys pack` writes it, with its files in a folder of their own."""
    manifest = write_shard_set(tmp_path / "set" / "version-1", "ab", "cd")
    artifacts.publish_version(str(tmp_path / "set"), "version-1", manifest)
    return tmp_path / "set"


def test_published_version_is_one_source_with_its_shard_set(versioned: Path) -> None:
    for sources in (find_sources([str(versioned)]), [open_shard_set(str(versioned))]):
        (source,) = sources
        assert source.uri == str(versioned)
        assert [shard.uri for shard in source.shards] == [
            f"{versioned}/version-1/00000.tar",
            f"{versioned}/version-1/00001.tar",
        ]
        assert source.findings == ()
    (source,) = find_sources([f"{versioned}/*/00001.tar"])
    assert [shard.num_items for shard in source.shards] == [2]


def test_tars_that_a_versioned_manifest_does_not_name_are_findings(versioned: Path) -> None:
    for name in ("2.tar", "version-1/3.tar", "version-2/00000.tar"):  # the last one is being written
        write_tar(versioned / name, [foreign_sample("a")])
    findings = open_shard_set(str(versioned)).findings
    assert [(finding.kind, finding.uri) for finding in findings] == [
        ("unnamed_shard", f"{versioned}/2.tar"),
        ("unnamed_shard", f"{versioned}/version-1/3.tar"),
    ]


def test_shard_set_without_its_version_is_still_found(versioned: Path) -> None:
    shutil.rmtree(versioned / "version-1")
    assert find(versioned) == {"set": ["00000.tar", "00001.tar"]}
