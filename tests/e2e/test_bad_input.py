"""Invalid input: one line on stderr, the documented exit status, and no artifacts."""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysys import cli
from tests.e2e.conftest import CompletedRun
from tests.e2e.small import CompletedCommand, run_raysys, write_config

HEADER = "item_id,title,image,seller\n"
FEW_WORKERS = {"ray": {"num_cpus": 2, "object_store_megabytes": 100}}
UNREACHABLE_RAY = "ray.address=127.0.0.1:1"  # fails every command that connects to a cluster

# Ray Serve's models use an API that pydantic has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")


def test_missing_file_is_reported_by_the_process(tmp_path: Path) -> None:
    write_config(tmp_path)
    finished = run_raysys("run", str(tmp_path / "smal.yaml"), folder=tmp_path)
    assert_refused(finished, 2, f"{tmp_path}/smal.yaml: no such file; did you mean 'small.yaml'?")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.lerning_rate=1", "train.lerning_rate: unknown key; did you mean 'learning_rate'?"),
        ("trian.epochs=1", "trian: unknown key; did you mean 'train'?"),
        ("train.epochs=many", "train.epochs: input should be a valid number"),
        ("train.workers=0", "train.workers: input should be greater than 0, got 0"),
        (
            "index.kind=fast",
            "index.kind: input should be 'auto', 'exact', 'ivf_sq8', 'ivf_pq', 'ivf_rabitq', 'hnsw' or 'hnsw_sq8', got 'fast'",
        ),
        ("fast", "fast: not of the form key=value, for example train.epochs=3"),
        ("projection.dimensions=[", "projection.dimensions=[: the value is not valid YAML"),
    ],
)
def test_invalid_setting_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    assert_refused(call(capsys, "run", str(write_config(tmp_path)), override), 2, message)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("words", [["bake", "x.yaml"], ["run"], ["run", "x.yaml", "--fast"]])
def test_unknown_command_or_argument_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(words)
    assert ended.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines()[-1].startswith("raysys")
    assert "error: " in captured.err


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (None, "items.csv: no such catalogue; set catalog.path to a file, a glob or a folder of "),
        ("item_id,titel,image,seller\n", "no column 'title' (found: item_id, titel, image, seller)"),
        ("item_id,titel,image,seller\n", "set catalog.columns.title; did you mean 'titel'?"),
        (HEADER, "the catalogue is empty; it needs at least one row"),
        ("", "no column 'item_id' (found: none)"),
    ],
)
def test_invalid_catalogue_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str | None, message: str
) -> None:
    if table is not None:
        (tmp_path / "items.csv").write_text(table)
    config = write_config(tmp_path, table_catalog(tmp_path))
    assert_refused(call(capsys, "pack", str(config), UNREACHABLE_RAY), 2, message)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluate.log.weights={colour: 1}", "evaluate.log.weights: unknown attribute 'colour'"),
        ("evaluate.attribute_precision={match: [sellr]}", "did you mean 'seller'?"),
        (
            "train.caption_weights={brand: 1}",
            "(catalog.columns.attributes: seller); name one of them, or add",
        ),
    ],
)
def test_missing_attribute_of_a_later_stage_is_refused_before_the_first_stage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], override: str, message: str
) -> None:
    (tmp_path / "items.csv").write_text(HEADER + "a,cup,a.jpg,anna\n")
    config = tmp_path / "own.yaml"
    valid = {"root": str(tmp_path / "root"), "evaluate": {"log": {"weights": {"seller": 1.0}}}}
    config.write_text(json.dumps(valid | table_catalog(tmp_path)))
    assert_refused(call(capsys, "run", str(config), override, UNREACHABLE_RAY), 2, message)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("stage", "missing", "command"),
    [
        ("train", "no ShardSet here", "raysys pack"),
        ("embed", "no ShardSet here", "raysys pack"),
        ("index", "no EmbeddingSet here", "raysys embed"),
        ("evaluate", "no ShardSet here", "raysys pack"),
        ("serve", "no EncoderBundle here", "raysys train"),
    ],
)
def test_stage_without_its_input_names_the_command_that_makes_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, missing: str, command: str
) -> None:
    finished = call(capsys, stage, str(write_config(tmp_path)), UNREACHABLE_RAY)
    assert_refused(finished, 2, missing)
    assert f"make it with `{command}`" in finished.stderr
    assert not (tmp_path / "root").exists()


def test_batch_larger_than_the_split_is_refused(
    completed_run: CompletedRun, capsys: pytest.CaptureFixture[str]
) -> None:
    before = manifests(completed_run.root)
    finished = call(capsys, "train", str(completed_run.config), "train.batch_size=1000", UNREACHABLE_RAY)
    assert_refused(finished, 2, "train.batch_size: 1000 pairs a step, but the train split has")
    assert manifests(completed_run.root) == before


def test_port_in_use_is_refused(completed_run: CompletedRun, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        finished = call(capsys, "serve", str(completed_run.config), f"serve.port={port}", UNREACHABLE_RAY)
    assert_refused(finished, 1, f"serve.port {port} on 127.0.0.1: Address already in use")


def test_index_of_another_space_is_not_served(
    completed_run: CompletedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(completed_run.root, root, ignore=shutil.ignore_patterns("images", "runs"))
    path = root / "indexes" / "small" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "space_id": "f" * 64}))

    finished = call(capsys, "serve", str(completed_run.config), f"root={root}", UNREACHABLE_RAY)
    assert_refused(finished, 2, f"is of embedding space {manifest['space_id'][:12]}, {root}/indexes/small")
    assert "of ffffffffffff: their vectors cannot be compared" in finished.stderr


def test_encoder_with_changed_files_is_not_served(
    completed_run: CompletedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(completed_run.root, root, ignore=shutil.ignore_patterns("images", "runs"))
    with (root / "encoders" / "small-pca" / "model.safetensors").open("ab") as weights:
        weights.write(b"more")
    finished = call(capsys, "serve", str(completed_run.config), f"root={root}", UNREACHABLE_RAY)
    assert_refused(finished, 1, "model.safetensors: should have")


# Needs a cluster; tests/unit/pack covers the same without one.
@pytest.mark.slow
def test_unreadable_photos_are_recorded_in_the_ledger(tmp_path: Path) -> None:
    config = write_config(tmp_path, table_catalog(tmp_path, num_good=38, num_bad=2))
    finished = run_raysys("pack", str(config), folder=tmp_path)
    assert finished.status == 0, finished.stderr
    assert "38 items" in finished.stage_lines[0]

    artifacts = manifests(tmp_path / "root")
    assert sum(manifest["num_refused"] for manifest in artifacts.values()) == 2
    ledgers = [pq.read_table(path) for path in (tmp_path / "root").glob("shards/*/*/ledger.parquet")]
    refused = [row for ledger in ledgers for row in ledger.to_pylist()]
    assert {row["item_id"] for row in refused} == {"bad-0", "bad-1"}
    assert {row["reason"] for row in refused} == {"not_an_image"}
    assert all(row["source"].startswith(f"{tmp_path}/items.csv:") for row in refused)


def test_unreachable_cluster_is_reported(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    finished = run_raysys("pack", str(config), UNREACHABLE_RAY, folder=tmp_path, timeout_s=60)
    assert_refused(finished, 1, "ray.address 127.0.0.1:1: no cluster answers")
    assert manifests(tmp_path / "root") == {}


def call(capsys: pytest.CaptureFixture[str], *words: str) -> CompletedCommand:
    """Run a command in this process; only for commands that fail before they start Ray."""
    status = cli.main(words)
    captured = capsys.readouterr()
    return CompletedCommand(status, captured.out, captured.err, 0.0)


def assert_refused(finished: CompletedCommand, status: int, message: str) -> None:
    """The last line on stderr is the only one of raysys and holds the message; stdout is empty."""
    assert finished.status == status, finished.stderr
    assert finished.stdout == ""
    lines = finished.stderr.splitlines()
    assert [number for number, line in enumerate(lines, 1) if "raysys: " in line] == [len(lines)]
    assert message in lines[-1]
    assert "Traceback" not in finished.stderr


def table_catalog(folder: Path, num_good: int = 0, num_bad: int = 0) -> dict[str, Any]:
    """Sections for a table catalogue in `folder`; its photos and table are written unless it is empty."""
    names = [
        *(f"good-{number}" for number in range(num_good)),
        *(f"bad-{number}" for number in range(num_bad)),
    ]
    for number, name in enumerate(names):
        if name.startswith("good"):
            Image.new("RGB", (40, 40), (6 * number, 90, 120)).save(folder / f"{name}.jpg")
        else:
            (folder / f"{name}.jpg").write_bytes(b"no photo")
    if names:
        rows = [f"{name},A title,{name}.jpg,s{number}\n" for number, name in enumerate(names)]
        (folder / "items.csv").write_text(HEADER + "".join(rows))
    columns = {"attributes": {"seller": "text"}}
    catalog = {"kind": "table", "path": str(folder / "items.csv"), "columns": columns}
    return {"catalog": catalog, **FEW_WORKERS}


def manifests(root: Path) -> Mapping[str, Any]:
    """Manifests of all artifacts under a root, by their folder."""
    return {
        str(path.parent.relative_to(root)): json.loads(path.read_text())
        for path in root.rglob("manifest.json")
        if not path.parent.name.startswith("version-")  # the same manifest once more
    }
