"""`raysys run` on a very small catalogue: its output, its artifacts, and a second run."""

from __future__ import annotations

import datetime
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import torch
import transformers
import webdataset
from PIL import Image

from raysys import cli
from raysys.config import load_config
from tests.e2e.conftest import CompletedRun
from tests.e2e.small import SMALL, run_raysys, stored_vectors

NUM_ITEMS = SMALL["catalog"]["num_items"]
STAGES = ["pack", "train", "embed", "index", "evaluate"]
SPLITS = ("train", "val", "test")
SHARD_SETS = {f"shards/{split}" for split in SPLITS}
UNREACHABLE_RAY = "ray.address=127.0.0.1:1"  # fails every command that starts or joins a cluster

# Folder of every artifact -> its kind and the folders of its inputs.
LINEAGE: dict[str, tuple[str, set[str]]] = {
    "catalog": ("Catalog", set()),
    **{shard_set: ("ShardSet", set()) for shard_set in SHARD_SETS},
    "encoders/small-start": ("EncoderBundle", {"shards/train"}),
    "encoders/small-tuned": ("EncoderBundle", {"shards/train", "encoders/small-start"}),
    "encoders/small": ("EncoderBundle", {"shards/val", "encoders/small-start", "encoders/small-tuned"}),
    "embeddings/small": ("EmbeddingSet", {*SHARD_SETS, "encoders/small"}),
    "encoders/small-pca": ("EncoderBundle", {"encoders/small", "embeddings/small"}),
    "embeddings/small-pca": ("EmbeddingSet", {"embeddings/small", "encoders/small-pca"}),
    "indexes/small": ("IndexBundle", {"embeddings/small-pca"}),
    "reports/small": (
        "Report",
        {
            "shards/val",
            "shards/test",
            "encoders/small-start",
            "encoders/small-tuned",
            "embeddings/small",
            "indexes/small",
        },
    ),
}
SYSTEMS = [
    "random",
    "popularity",
    "thumbnail",
    "mobilenet_v2",
    "zero_shot",
    "fine_tuned",
    "wise_ft",
    "fine_tuned_pca",
]


@pytest.fixture(scope="module")
def report(completed_run: CompletedRun) -> Any:
    return json.loads((completed_run.root / "reports" / "small" / "report.json").read_text())


def test_stdout_is_only_the_uri_of_the_report(completed_run: CompletedRun) -> None:
    assert completed_run.run.stdout == f"{completed_run.root}/reports/small\n"


def test_stderr_has_one_line_per_stage_in_order(completed_run: CompletedRun) -> None:
    assert [line.split()[0] for line in completed_run.run.stage_lines] == STAGES
    assert "Traceback" not in completed_run.run.stderr


def test_all_artifacts_are_in_their_folders(completed_run: CompletedRun) -> None:
    root = completed_run.root
    folders = {str(path.parent.relative_to(root)) for path in root.rglob("manifest.json")}
    versions = {
        f"{uri}/{read_manifest(completed_run, uri)['folder']}" for uri in (*SHARD_SETS, "indexes/small")
    }
    copies = {  # of encoders, which a service can name while another one is published
        f"{uri}/.version-{read_manifest(completed_run, uri)['fingerprint'][:12]}"
        for uri in LINEAGE
        if uri.startswith("encoders/")
    }
    assert folders == {*LINEAGE, *versions, *copies}


@pytest.mark.parametrize("folder", sorted(LINEAGE))
def test_manifest_records_kind_inputs_and_files(completed_run: CompletedRun, folder: str) -> None:
    manifest = read_manifest(completed_run, folder)
    kind, parents = LINEAGE[folder]
    inputs = {
        str(Path(entry["uri"]).relative_to(completed_run.root)): entry["fingerprint"]
        for entry in manifest["inputs"].values()
        if Path(entry["uri"], "manifest.json").exists()
    }
    assert manifest["kind"] == kind
    assert inputs == {parent: read_manifest(completed_run, parent)["fingerprint"] for parent in parents}
    assert datetime.datetime.fromisoformat(manifest["created_at"]).tzinfo is datetime.UTC
    assert manifest["code_version"]
    for name, entry in manifest["files"].items():
        assert (completed_run.root / folder / manifest["folder"] / name).stat().st_size == entry["bytes"]


def test_manifest_records_the_resolved_section(completed_run: CompletedRun) -> None:
    config = load_config(str(completed_run.config))
    sections = {"catalog": config.catalog, "indexes/small": config.index, "reports/small": config.evaluate}
    for folder, section in sections.items():
        # An index has its embeddings as an input, and is the same on every device.
        settings = section.model_dump(mode="json", exclude={"embeddings", "device"})
        assert read_manifest(completed_run, folder)["config"] == settings
    train = read_manifest(completed_run, "encoders/small-tuned")["config"]["train"]
    assert (train["batch_size"], train["epochs"]) == (32, 2)


def test_every_item_of_the_catalogue_reaches_the_index(completed_run: CompletedRun) -> None:
    counts = {folder: read_manifest(completed_run, folder)["num_items"] for folder in LINEAGE}
    assert sum(counts[folder] for folder in SHARD_SETS) == NUM_ITEMS
    for folder in ("catalog", "embeddings/small", "embeddings/small-pca", "indexes/small"):
        assert counts[folder] == NUM_ITEMS


def test_projected_encoder_embeddings_and_index_share_a_space(completed_run: CompletedRun) -> None:
    folders = ("encoders/small-pca", "embeddings/small-pca", "indexes/small")
    assert len({read_manifest(completed_run, folder)["space_id"] for folder in folders}) == 1
    encoders = ("encoders/small-start", "encoders/small-tuned", "encoders/small-pca")
    assert len({read_manifest(completed_run, folder)["space_id"] for folder in encoders}) == 3


def test_report_has_every_system_in_order(report: Any) -> None:
    assert report["simulated"] is True
    assert [system["name"] for system in report["rungs"]] == SYSTEMS


def test_system_without_weights_gives_a_reason(report: Any) -> None:
    absent = [system for system in report["rungs"] if not system["available"]]
    assert [system["name"] for system in absent] == ["mobilenet_v2"]
    assert "weights not reachable here" in absent[0]["reason"]


def test_interpolation_is_in_the_report_and_in_the_manifest(completed_run: CompletedRun, report: Any) -> None:
    found = read_manifest(completed_run, "encoders/small")["interpolation"]
    assert report["interpolation"] == found
    assert [point["a"] for point in found["points"]] == [0.0, 0.5, 1.0]
    allowed = [point for point in found["points"] if point["guard"] >= found["floor"]]
    best = max(allowed, key=lambda point: (point["figures"]["ndcg@5"], point["a"]))
    assert found["chosen"] == best["a"]
    (line,) = [line for line in completed_run.run.stderr.splitlines() if "interpolated" in line]
    assert f"interpolated: alpha={best['a']:g}, ndcg@5 {best['figures']['ndcg@5']:.3f} (start " in line


def test_every_metric_is_inside_its_interval(report: Any) -> None:
    for system in report["rungs"]:
        if system["available"]:
            assert set(system["metrics"]) == {"ndcg@5", "hit@1", "hit@3"}
            for interval in system["metrics"].values():
                assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1


def test_report_page_loads_nothing_from_the_network(completed_run: CompletedRun) -> None:
    page = (completed_run.root / "reports" / "small" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    # Resources that a browser would fetch; links in the text (`<a href>`) are allowed.
    assert re.findall(r"<link\b|\bsrc(?:set)?\s*=\s*[\"']?(?!data:)[^\"'\s>]+", page) == []
    assert re.findall(r"href\s*=\s*[\"']?(?!#|data:)[^\"'\s>]+", re.sub(r"<a\b[^>]*>", "", page)) == []
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\s]+", page) == []
    assert "SIMULATED" in page.upper()


def test_second_run_skips_every_stage_and_starts_no_cluster(
    completed_run: CompletedRun, tmp_path: Path
) -> None:
    again = run_raysys("run", str(completed_run.config), UNREACHABLE_RAY, folder=tmp_path)
    assert (again.status, again.stdout) == (0, completed_run.run.stdout)
    assert again.stderr.splitlines() == again.stage_lines
    assert [line.split()[0] for line in again.stage_lines] == STAGES
    assert all("up to date: skipped" in line for line in again.stage_lines)
    assert again.seconds < completed_run.run.seconds / 2


def test_only_a_missing_index_is_rebuilt(
    completed_run: CompletedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(completed_run.root, root)
    (root / "indexes" / "small" / "manifest.json").unlink()

    assert cli.main(["run", str(completed_run.config), f"root={root}", UNREACHABLE_RAY]) == 0
    lines = capsys.readouterr().err.splitlines()
    rebuilt = [line.split()[0] for line in lines if "skipped" not in line]
    assert rebuilt == ["index"]  # the same bytes, so the report is still up to date
    assert len(lines) == len(STAGES)


def test_frontier_is_published_beside_the_report_and_no_index(
    completed_run: CompletedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(completed_run.root, root)
    shutil.rmtree(root / "indexes")
    words = ["index", str(completed_run.config), f"root={root}", UNREACHABLE_RAY, "--frontier"]
    protocol = "evaluate.attribute_precision={match: [kind]}"

    assert cli.main([*words, "frontier.dimensions=[8]", protocol]) == 0
    folder = root / "reports" / "small-frontier"
    assert capsys.readouterr().out == f"{folder}\n"
    frontier = json.loads((folder / "frontier.json").read_text())
    assert {row["dimensions"] for row in frontier["rows"]} == {32, 8}
    assert all({"recall@10", "ndcg@5", "p@5"} == row["metrics"].keys() for row in frontier["rows"])
    # The log is that of the report, and the vectors are those of the delivered encoder.
    report = json.loads((root / "reports" / "small" / "report.json").read_text())
    (delivered,) = (system for system in report["rungs"] if system["name"] == "wise_ft")
    assert frontier["rows"][0]["metrics"]["ndcg@5"] == delivered["metrics"]["ndcg@5"]
    assert (folder / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert not (root / "indexes").exists()

    assert cli.main([*words, "frontier.dimensions=[8]", protocol]) == 0
    assert "up to date: skipped" in capsys.readouterr().err
    assert cli.main([*words, "frontier.dimensions=[64]"]) == 2
    assert "frontier.dimensions: 64 is above the 32 dimensions" in capsys.readouterr().err
    shutil.rmtree(root / "embeddings")
    assert cli.main([*words, "frontier.dimensions=[8]"]) == 2
    assert "make it with `raysys embed`" in capsys.readouterr().err


def test_json_is_one_object(completed_run: CompletedRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["index", str(completed_run.config), UNREACHABLE_RAY, "--json"]) == 0
    stage = json.loads(capsys.readouterr().out)
    assert (stage["stage"], stage["num_items"], stage["is_skipped"]) == ("index", NUM_ITEMS, True)
    assert stage["uri"] == f"{completed_run.root}/indexes/small"

    assert cli.main(["run", str(completed_run.config), UNREACHABLE_RAY, "--json"]) == 0
    everything = json.loads(capsys.readouterr().out)
    assert everything["uri"] == f"{completed_run.root}/reports/small"
    assert [stage["stage"] for stage in everything["stages"]] == STAGES


def test_dry_run_prints_the_plan_and_writes_nothing(
    completed_run: CompletedRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert cli.main(["run", str(completed_run.config), f"root={root}", UNREACHABLE_RAY, "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []
    plan = capsys.readouterr().out.splitlines()
    assert plan[0].split()[0] == "pack"
    assert {line.split()[0] for line in plan} == set(STAGES)


# webdataset does not close the shards that it has read.
reads_shards = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@reads_shards
def test_webdataset_reads_the_shards(completed_run: CompletedRun) -> None:
    item_ids = [item["item_id"] for _, item in samples(completed_run)]
    assert len(item_ids) == len(set(item_ids)) == NUM_ITEMS


@reads_shards
def test_transformers_computes_the_stored_vectors(completed_run: CompletedRun) -> None:
    bundle = completed_run.root / "encoders" / "small-pca"
    model = transformers.AutoModel.from_pretrained(bundle).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(bundle, backend="pil")
    projection = safetensors.numpy.load_file(bundle / "projection.safetensors")
    stored = stored_vectors(completed_run.root)

    photos = {item["item_id"]: photo for photo, item in samples(completed_run)}
    with torch.no_grad():
        pixels = processor(list(photos.values()), return_tensors="pt")
        features = unit(model.get_image_features(**pixels).pooler_output.numpy())
    projected = unit((features - projection["mean"]) @ projection["components"].T)
    assert projected.shape == (NUM_ITEMS, 16)
    np.testing.assert_allclose(projected, [stored[item_id] for item_id in photos], atol=1e-5)


def read_manifest(completed_run: CompletedRun, folder: str) -> Any:
    return json.loads((completed_run.root / folder / "manifest.json").read_text())


def samples(completed_run: CompletedRun) -> Iterator[tuple[Image.Image, Any]]:
    """Photo and JSON of every sample, read by webdataset."""
    shards = sorted(str(path) for path in completed_run.root.glob("shards/*/*/*.tar"))
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        yield Image.open(io.BytesIO(sample["jpg"])), json.loads(sample["json"])


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
