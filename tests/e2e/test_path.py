"""`raysys run` on a very small catalogue: what it prints, what it leaves, and what a second run does."""

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
from tests.e2e.conftest import MadePath
from tests.e2e.small import SMALL, run_raysys, stored_vectors

NUM_ITEMS = SMALL["catalog"]["num_items"]
STAGES = ["pack", "train", "embed", "index", "evaluate"]
SPLITS = ("train", "val", "test")
SHARD_SETS = {f"shards/{split}" for split in SPLITS}
NOBODY = "ray.address=127.0.0.1:1"  # a command that would start or join a cluster fails with it

# Every artifact: its kind, and the artifacts it was made from.
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
RUNGS = [
    "random",
    "popularity",
    "thumbnail",
    "mobilenet_v2",
    "zero_shot",
    "fine_tuned",
    "wise_ft",
    "fine_tuned_pca",
    "fine_tuned_pca_index",
]


@pytest.fixture(scope="module")
def report(made_path: MadePath) -> Any:
    return json.loads((made_path.root / "reports" / "small" / "report.json").read_text())


def test_stdout_is_the_report_alone(made_path: MadePath) -> None:
    assert made_path.run.stdout == f"{made_path.root}/reports/small\n"


def test_stderr_has_one_line_a_stage_in_the_order_of_the_data(made_path: MadePath) -> None:
    assert [line.split()[0] for line in made_path.run.stage_lines] == STAGES
    assert "Traceback" not in made_path.run.stderr


def test_every_artifact_stands_in_its_place(made_path: MadePath) -> None:
    found = {str(path.parent.relative_to(made_path.root)) for path in made_path.root.rglob("manifest.json")}
    assert found == set(LINEAGE)


@pytest.mark.parametrize("place", sorted(LINEAGE))
def test_a_manifest_says_what_it_is_and_what_it_was_made_from(made_path: MadePath, place: str) -> None:
    manifest = read_manifest(made_path, place)
    kind, parents = LINEAGE[place]
    made_from = {
        str(Path(entry["uri"]).relative_to(made_path.root)): entry["fingerprint"]
        for entry in manifest["inputs"].values()
        if Path(entry["uri"], "manifest.json").exists()
    }
    assert manifest["kind"] == kind
    assert made_from == {parent: read_manifest(made_path, parent)["fingerprint"] for parent in parents}
    assert datetime.datetime.fromisoformat(manifest["created_at"]).tzinfo is datetime.UTC
    assert manifest["code_version"]
    for name, entry in manifest["files"].items():
        assert (made_path.root / place / name).stat().st_size == entry["bytes"]


def test_a_manifest_carries_the_resolved_section(made_path: MadePath) -> None:
    config = load_config(str(made_path.config))
    sections = {"catalog": config.catalog, "indexes/small": config.index, "reports/small": config.evaluate}
    for place, section in sections.items():
        assert read_manifest(made_path, place)["config"] == section.model_dump(mode="json")
    train = read_manifest(made_path, "encoders/small-tuned")["config"]["train"]
    assert (train["batch_size"], train["epochs"]) == (32, 2)


def test_every_item_of_the_catalogue_gets_to_the_index(made_path: MadePath) -> None:
    counts = {place: read_manifest(made_path, place)["num_items"] for place in LINEAGE}
    assert sum(counts[place] for place in SHARD_SETS) == NUM_ITEMS
    for place in ("catalog", "embeddings/small", "embeddings/small-pca", "indexes/small"):
        assert counts[place] == NUM_ITEMS


def test_one_space_from_the_projected_encoder_to_the_index(made_path: MadePath) -> None:
    places = ("encoders/small-pca", "embeddings/small-pca", "indexes/small")
    assert len({read_manifest(made_path, place)["space_id"] for place in places}) == 1
    encoders = ("encoders/small-start", "encoders/small-tuned", "encoders/small-pca")
    assert len({read_manifest(made_path, place)["space_id"] for place in encoders}) == 3


def test_the_report_has_every_rung_in_order(report: Any) -> None:
    assert report["simulated"] is True
    assert [rung["name"] for rung in report["rungs"]] == RUNGS


def test_a_rung_without_weights_says_so(report: Any) -> None:
    absent = [rung for rung in report["rungs"] if not rung["available"]]
    assert [rung["name"] for rung in absent] == ["mobilenet_v2"]
    assert "weights not reachable here" in absent[0]["reason"]


def test_the_way_back_to_the_start_is_in_the_report_and_beside_the_weights(
    made_path: MadePath, report: Any
) -> None:
    found = read_manifest(made_path, "encoders/small")["interpolation"]
    assert report["interpolation"] == found
    assert [point["a"] for point in found["points"]] == [0.0, 0.5, 1.0]
    allowed = [point for point in found["points"] if point["guard"] >= found["floor"]]
    best = max(allowed, key=lambda point: (point["figures"]["ndcg@5"], point["a"]))
    assert found["chosen"] == best["a"]
    (line,) = [line for line in made_path.run.stderr.splitlines() if "interpolated" in line]
    assert f"interpolated: alpha={best['a']:g}, ndcg@5 {best['figures']['ndcg@5']:.3f} (start " in line


def test_every_figure_lies_in_its_interval(report: Any) -> None:
    for rung in report["rungs"]:
        if rung["available"]:
            assert set(rung["metrics"]) == {"ndcg@5", "hit@1", "hit@3"}
            for interval in rung["metrics"].values():
                assert 0 <= interval["low"] <= interval["value"] <= interval["high"] <= 1


def test_the_page_of_the_report_needs_nothing_from_elsewhere(made_path: MadePath) -> None:
    page = (made_path.root / "reports" / "small" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    # What a browser would fetch; a link in the text (the paper's address) is followed by people alone.
    assert re.findall(r"<link\b|\bsrc(?:set)?\s*=\s*[\"']?(?!data:)[^\"'\s>]+", page) == []
    assert re.findall(r"href\s*=\s*[\"']?(?!#|data:)[^\"'\s>]+", re.sub(r"<a\b[^>]*>", "", page)) == []
    assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^\s]+", page) == []
    assert "SIMULATED" in page.upper()


def test_a_second_run_skips_every_stage_and_starts_no_cluster(made_path: MadePath, tmp_path: Path) -> None:
    again = run_raysys("run", str(made_path.config), NOBODY, folder=tmp_path)
    assert (again.status, again.stdout) == (0, made_path.run.stdout)
    assert again.stderr.splitlines() == again.stage_lines
    assert [line.split()[0] for line in again.stage_lines] == STAGES
    assert all("up to date: skipped" in line for line in again.stage_lines)
    assert again.seconds < made_path.run.seconds / 2


def test_a_lost_index_is_made_again_and_nothing_else(
    made_path: MadePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    shutil.copytree(made_path.root, root)
    (root / "indexes" / "small" / "manifest.json").unlink()

    assert cli.main(["run", str(made_path.config), f"root={root}", NOBODY]) == 0
    lines = capsys.readouterr().err.splitlines()
    made = [line.split()[0] for line in lines if "skipped" not in line]
    assert made == ["index"]  # the same bytes again, so the report on them still stands
    assert len(lines) == len(STAGES)


def test_json_is_one_object(made_path: MadePath, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["index", str(made_path.config), NOBODY, "--json"]) == 0
    stage = json.loads(capsys.readouterr().out)
    assert (stage["stage"], stage["num_items"], stage["is_skipped"]) == ("index", NUM_ITEMS, True)
    assert stage["uri"] == f"{made_path.root}/indexes/small"

    assert cli.main(["run", str(made_path.config), NOBODY, "--json"]) == 0
    whole = json.loads(capsys.readouterr().out)
    assert whole["uri"] == f"{made_path.root}/reports/small"
    assert [stage["stage"] for stage in whole["stages"]] == STAGES


def test_a_dry_run_says_what_it_would_make_and_makes_nothing(
    made_path: MadePath, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "root"
    assert cli.main(["run", str(made_path.config), f"root={root}", NOBODY, "--dry-run"]) == 0
    assert list(tmp_path.iterdir()) == []
    plan = capsys.readouterr().out.splitlines()
    assert plan[0].split()[0] == "pack"
    assert {line.split()[0] for line in plan} == set(STAGES)


# webdataset leaves the shards it has read to the garbage collector.
reads_shards = pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning")


@reads_shards
def test_plain_webdataset_reads_the_shards(made_path: MadePath) -> None:
    item_ids = [item["item_id"] for _, item in samples(made_path)]
    assert len(item_ids) == len(set(item_ids)) == NUM_ITEMS


@reads_shards
def test_plain_transformers_gives_the_stored_vectors(made_path: MadePath) -> None:
    bundle = made_path.root / "encoders" / "small-pca"
    model = transformers.AutoModel.from_pretrained(bundle).eval()
    processor = transformers.AutoImageProcessor.from_pretrained(bundle, backend="pil")
    projection = safetensors.numpy.load_file(bundle / "projection.safetensors")
    stored = stored_vectors(made_path.root)

    pictures = {item["item_id"]: photo for photo, item in samples(made_path)}
    with torch.no_grad():
        pixels = processor(list(pictures.values()), return_tensors="pt")
        features = unit(model.get_image_features(**pixels).pooler_output.numpy())
    projected = unit((features - projection["mean"]) @ projection["components"].T)
    assert projected.shape == (NUM_ITEMS, 16)
    np.testing.assert_allclose(projected, [stored[item_id] for item_id in pictures], atol=1e-5)


def read_manifest(made_path: MadePath, place: str) -> Any:
    return json.loads((made_path.root / place / "manifest.json").read_text())


def samples(made_path: MadePath) -> Iterator[tuple[Image.Image, Any]]:
    """Every photo with what stands beside it, by webdataset alone."""
    shards = sorted(str(path) for path in made_path.root.glob("shards/*/*.tar"))
    for sample in webdataset.WebDataset(shards, shardshuffle=False):
        yield Image.open(io.BytesIO(sample["jpg"])), json.loads(sample["json"])


def unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))
