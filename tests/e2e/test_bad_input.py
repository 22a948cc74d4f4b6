"""Wrong input ends a command with one clear line, the right status, and nothing made."""

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
from tests.e2e.conftest import MadePath
from tests.e2e.small import Finished, run_raysys, write_config

HEADER = "item_id,title,image,seller\n"
FEW_WORKERS = {"ray": {"num_cpus": 2, "object_store_megabytes": 100}}
NOBODY = "ray.address=127.0.0.1:1"  # a command that would reach for a cluster fails with it

# Ray Serve's own models are written for an older pydantic.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")


def test_a_missing_file_as_a_process(tmp_path: Path) -> None:
    write_config(tmp_path)
    finished = run_raysys("run", str(tmp_path / "smal.yaml"), folder=tmp_path)
    assert_refused(finished, 2, f"{tmp_path}/smal.yaml: no such file; did you mean 'small.yaml'?")


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("train.lerning_rate=1", "train.lerning_rate: unknown key; did you mean 'learning_rate'?"),
        ("trian.epochs=1", "trian: unknown key; did you mean 'train'?"),
        ("train.epochs=many", "train.epochs: input should be a valid number"),
        ("train.workers=0", "train.workers: input should be greater than 0, got 0"),
        ("index.kind=fast", "index.kind: input should be 'exact' or 'hnsw', got 'fast'"),
        ("fast", "fast: not of the form key=value, for example train.epochs=3"),
        ("projection.dimensions=[", "projection.dimensions=[: the value is not YAML"),
    ],
)
def test_a_wrong_setting(tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, message: str) -> None:
    assert_refused(call(capsys, "run", str(write_config(tmp_path)), word), 2, message)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("words", [["bake", "x.yaml"], ["run"], ["run", "x.yaml", "--fast"]])
def test_an_unknown_command_or_argument(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
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
def test_a_wrong_catalogue(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], table: str | None, message: str
) -> None:
    if table is not None:
        (tmp_path / "items.csv").write_text(table)
    config = write_config(tmp_path, own_catalog(tmp_path))
    assert_refused(call(capsys, "pack", str(config), NOBODY), 2, message)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("evaluate.log.weights={colour: 1}", "evaluate.log.weights: unknown attribute 'colour'"),
        ("evaluate.attribute_precision={match: [sellr]}", "did you mean 'seller'?"),
        (
            "train.caption_weights={brand: 1}",
            "(catalog.columns.attributes: seller); name one of them, or add",
        ),
    ],
)
def test_an_attribute_that_a_late_stage_needs_is_missed_before_the_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    (tmp_path / "items.csv").write_text(HEADER + "a,cup,a.jpg,anna\n")
    config = tmp_path / "own.yaml"
    fitting = {"root": str(tmp_path / "root"), "evaluate": {"log": {"weights": {"seller": 1.0}}}}
    config.write_text(json.dumps(fitting | own_catalog(tmp_path)))
    assert_refused(call(capsys, "run", str(config), word, NOBODY), 2, message)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize(
    ("stage", "needed", "made_by"),
    [
        ("train", "no ShardSet here", "raysys pack"),
        ("embed", "no ShardSet here", "raysys pack"),
        ("index", "no EmbeddingSet here", "raysys embed"),
        ("evaluate", "no ShardSet here", "raysys pack"),
        ("serve", "no EncoderBundle here", "raysys train"),
    ],
)
def test_a_stage_before_its_input_exists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], stage: str, needed: str, made_by: str
) -> None:
    finished = call(capsys, stage, str(write_config(tmp_path)), NOBODY)
    assert_refused(finished, 2, needed)
    assert f"make it with `{made_by}`" in finished.stderr
    assert not (tmp_path / "root").exists()


def test_a_batch_larger_than_the_split(made_path: MadePath, capsys: pytest.CaptureFixture[str]) -> None:
    before = manifests(made_path.root)
    finished = call(capsys, "train", str(made_path.config), "train.batch_size=1000", NOBODY)
    assert_refused(finished, 2, "train.batch_size: 1000 pairs a step, but the train split has")
    assert manifests(made_path.root) == before


def test_a_port_in_use(made_path: MadePath, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        finished = call(capsys, "serve", str(made_path.config), f"serve.port={port}", NOBODY)
    assert_refused(finished, 1, f"serve.port {port} on 127.0.0.1: Address already in use")


def test_an_index_of_another_space_is_not_served(
    made_path: MadePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(made_path.root, root, ignore=shutil.ignore_patterns("images", "runs"))
    path = root / "indexes" / "small" / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "space_id": "f" * 64}))

    finished = call(capsys, "serve", str(made_path.config), f"root={root}", NOBODY)
    assert_refused(finished, 2, f"is of embedding space {manifest['space_id'][:12]}, {root}/indexes/small")
    assert "of ffffffffffff: their vectors cannot be compared" in finished.stderr


def test_an_encoder_whose_files_were_changed_is_not_used(
    made_path: MadePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(made_path.root, root, ignore=shutil.ignore_patterns("images", "runs"))
    with (root / "encoders" / "small-pca" / "model.safetensors").open("ab") as weights:
        weights.write(b"more")
    finished = call(capsys, "serve", str(made_path.config), f"root={root}", NOBODY)
    assert_refused(finished, 1, "model.safetensors should have")


# A cluster for what unit/shards/test_pack.py shows in process.
@pytest.mark.slow
def test_a_few_unreadable_photos_go_to_the_ledger(tmp_path: Path) -> None:
    config = write_config(tmp_path, own_catalog(tmp_path, num_good=38, num_bad=2))
    finished = run_raysys("pack", str(config), folder=tmp_path)
    assert finished.status == 0, finished.stderr
    assert "38 items" in finished.stage_lines[0]

    made = manifests(tmp_path / "root")
    assert sum(manifest["num_refused"] for manifest in made.values()) == 2
    ledgers = [pq.read_table(path) for path in (tmp_path / "root").glob("shards/*/ledger.parquet")]
    refused = [row for ledger in ledgers for row in ledger.to_pylist()]
    assert {row["item_id"] for row in refused} == {"bad-0", "bad-1"}
    assert {row["reason"] for row in refused} == {"not_an_image"}
    assert all(row["source"].startswith(f"{tmp_path}/items.csv:") for row in refused)


def test_a_cluster_that_does_not_answer(tmp_path: Path) -> None:
    config = write_config(tmp_path)
    finished = run_raysys("pack", str(config), NOBODY, folder=tmp_path, timeout_s=60)
    assert_refused(finished, 1, "ray.address 127.0.0.1:1: no cluster answers")
    assert manifests(tmp_path / "root") == {}


def call(capsys: pytest.CaptureFixture[str], *words: str) -> Finished:
    """The command in this process: for those that end before they reach for Ray."""
    status = cli.main(words)
    captured = capsys.readouterr()
    return Finished(status, captured.out, captured.err, 0.0)


def assert_refused(finished: Finished, status: int, message: str) -> None:
    """One line of raysys on stderr, the last, holds the message; nothing is on stdout."""
    assert finished.status == status, finished.stderr
    assert finished.stdout == ""
    lines = finished.stderr.splitlines()
    assert [number for number, line in enumerate(lines, 1) if "raysys: " in line] == [len(lines)]
    assert message in lines[-1]
    assert "Traceback" not in finished.stderr


def own_catalog(folder: Path, num_good: int = 0, num_bad: int = 0) -> dict[str, Any]:
    """Sections for a catalogue of one's own in `folder`; photos and table are written if there are any."""
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
    """Every artifact under a root, by its place."""
    return {
        str(path.parent.relative_to(root)): json.loads(path.read_text())
        for path in root.rglob("manifest.json")
    }
