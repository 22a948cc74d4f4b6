"""Places that cannot be used: one line on stderr that names the place, a status of 1 or 2, and no traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from raysys import cli
from tests.e2e.small import write_config

PLACES = ("file", "below", "long", "nul", "loop", "forbidden", "scheme")
WRITING = ("run", "pack")
READING = ("train", "embed", "index", "evaluate", "serve")
UNREACHABLE_RAY = "ray.address=127.0.0.1:1"

# Ray Serve's models use an API that pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place that cannot be used. As root every folder can be written: one is `forbidden` by a fake."""
    (tmp_path / "file").write_text("text")
    (tmp_path / "loop").symlink_to("loop")
    if request.param == "forbidden":
        forbid(monkeypatch, tmp_path / "forbidden")
    return {
        "file": f"{tmp_path}/file",
        "below": f"{tmp_path}/file/below",
        "long": f"{tmp_path}/{'n' * 300}",
        "nul": f"{tmp_path}/a\0b",
        "loop": f"{tmp_path}/loop/below",
        "forbidden": f"{tmp_path}/forbidden",
        "scheme": "ftp://host/below",
    }[request.param]


def forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    folder.mkdir()
    real_open = os.open

    def denying_open(path: str, *arguments: int, **keywords: int) -> int:
        if str(path).startswith(str(folder)) and arguments[0] & (os.O_WRONLY | os.O_RDWR):
            raise PermissionError(13, "Permission denied", path)
        return real_open(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", denying_open)


@pytest.mark.parametrize("command", [*WRITING, *READING])
def test_root_is_named(command: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [command, str(write_config(tmp_path)), setting("root", place), UNREACHABLE_RAY]
    assert_named(cli.main(words), capsys, place)


def test_plan_for_such_a_root_is_refused(
    place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if place.endswith("forbidden"):
        return  # a plan writes nothing
    words = ["run", str(write_config(tmp_path)), "--dry-run", setting("root", place)]
    assert_named(cli.main(words), capsys, place)


@pytest.mark.parametrize("key", ["catalog.path", "catalog.images", "pack.parent"])
def test_input_of_pack_is_named(
    key: str, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if key == "catalog.images" and not place.endswith(("file", "file/below", "n" * 300, "\0b", "loop/below")):
        return  # other folders are read photo by photo
    (tmp_path / "items.csv").write_text("item_id,title,image,seller\na,cup,a.jpg,anna\n")
    catalog = (
        f"catalog={{kind: table, path: {tmp_path}/items.csv, columns: {{attributes: {{seller: text}}}}}}"
    )
    words = ["pack", str(write_config(tmp_path)), catalog, setting(key, place), UNREACHABLE_RAY]
    assert_named(cli.main(words), capsys, place)


@pytest.mark.parametrize("command", ["config", *WRITING, *READING])
def test_configuration_file_is_named(command: str, place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert_named(cli.main([command, place]), capsys, place.replace("//", "/"))


@pytest.mark.parametrize("words", [["verify", "PLACE"], ["verify", "TAR", "--repair", "PLACE"]])
def test_shards_of_verify_are_named(
    words: list[str], place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words == ["verify", "PLACE"] and place.endswith("/file"):
        return  # a damaged shard
    tar = tmp_path / "a.tar"
    tar.write_bytes(bytes(10240))
    ended = cli.main([{"PLACE": place, "TAR": str(tar)}.get(word, word) for word in words])
    assert_named(ended, capsys, place)


def test_setting_in_place_of_the_file_has_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "train.epochs=3"]) == 2
    assert capsys.readouterr().err == (
        "raysys: train.epochs=3: no such file; a YAML file is expected before settings, for example: "
        "raysys config configs/demo.yaml train.epochs=3\n"
    )


def setting(key: str, place: str) -> str:
    return f'{key}="{place}"'.replace("\0", "\\0")


def assert_named(status: int, capsys: pytest.CaptureFixture[str], place: str) -> None:
    captured = capsys.readouterr()
    assert status in (1, 2)
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("raysys: ")
    assert place in line or repr(place)[1:-1] in line


# The output of a process.


def shell(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of bash in which `raysys` stands for the command; the status is that of raysys."""
    words = command.replace("raysys", f"{sys.executable} -m raysys", 1)
    return subprocess.run(
        ["bash", "-c", f"{words}; exit ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("command", "status"),
    [
        ("raysys config | exec 0<&-", 141),  # 128 + SIGPIPE, as for programs of coreutils
        ("raysys config --reference | exec 0<&-", 141),
        ("raysys config absent.yaml 2>&1 | exec 0<&-", 2),
        ("raysys config >&-", 0),
    ],
)
def test_output_that_nobody_reads_is_no_error(command: str, status: int) -> None:
    finished = shell(command)
    assert (finished.returncode, finished.stderr) == (status, "")


def test_output_to_a_full_disk_is_one_line() -> None:
    finished = shell("raysys config > /dev/full")
    assert finished.returncode == 1
    assert finished.stderr.startswith("raysys: a disk is full (No space left on device); free space ")
    assert finished.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "environment",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"LC_ALL": "C"},
        {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
    ids=lambda environment: next(iter(environment.values())),
)
def test_japanese_names_are_printed_on_any_terminal(environment: dict[str, str], tmp_path: Path) -> None:
    config = tmp_path / "a.yaml"
    config.write_text(f"root: {tmp_path}/日本\ncatalog: {{kind: table, path: {tmp_path}/絵.csv}}\n", "utf-8")
    shown = shell(f"raysys config {config}", **environment)
    assert (shown.returncode, shown.stderr) == (0, "")
    refused = shell(f"raysys pack {config}", **environment)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert line.startswith(f"raysys: {tmp_path}/")
    for text in (shown.stdout, line):
        assert any(name in text for name in ("日本", "絵", r"\u65e5\u672c", r"\u7d75"))
