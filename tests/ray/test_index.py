"""`raysys index` in several files: Ray tasks fill them, and their content is that of one process."""

from __future__ import annotations

from pathlib import Path

import faiss
import pytest

from raysys.artifacts import ArtifactSpec, IndexBundleManifest
from raysys.cluster import nodes
from raysys.cluster.task_map import connected_map
from raysys.config import Config
from raysys.config.schema import IndexConfig, RayConfig
from raysys.errors import DamagedData, InputError, known_cause
from raysys.index.build import publish_index
from raysys.index.device import Gpu
from raysys.index.stage import gpu_tasks_of
from tests.unit.index.embedding_sets import clustered_vectors, publish_embeddings

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_tasks_write_the_files_that_one_process_writes(tmp_path: Path) -> None:
    embeddings = publish_embeddings(tmp_path / "embeddings", clustered_vectors(1500), num_files=3)
    section = IndexConfig(kind="ivf_sq8", shards=2, recall_queries=50)
    manifests = [
        publish_index(
            ArtifactSpec(str(tmp_path / name), IndexBundleManifest, {}, {}), embeddings, section, parallel
        )
        for name, parallel in (("alone", map), ("tasks", connected_map(RayConfig(num_cpus=2))))
    ]
    assert manifests[0].files == manifests[1].files
    assert len(manifests[0].files) == 4
    assert manifests[0].recall == manifests[1].recall


def test_damaged_vectors_are_named_by_the_task_that_reads_them(tmp_path: Path) -> None:
    vectors = clustered_vectors(40)
    vectors[33] = 0
    embeddings = publish_embeddings(tmp_path / "embeddings", vectors, num_files=2)
    with pytest.raises(Exception, match=r"train-00001\.parquet: 1 of 20 .* 'm33' has only zeros") as caught:
        publish_index(
            ArtifactSpec(str(tmp_path / "index"), IndexBundleManifest, {}, {}),
            embeddings,
            IndexConfig(shards=2),
            connected_map(RayConfig(num_cpus=2)),
        )
    assert isinstance(caught.value, DamagedData)
    assert not (tmp_path / "index").exists()


@pytest.mark.parametrize(
    ("device", "address", "free_gpus", "has_tasks"),
    [
        ("auto", "auto", 1, True),
        ("auto", "auto", 0, False),  # others hold them
        ("auto", None, 1, False),  # a cluster on this machine has no GPU that this process does not see
        ("cpu", "auto", 1, False),
    ],
)
def test_build_without_a_gpu_uses_free_ones_of_a_running_cluster(
    monkeypatch: pytest.MonkeyPatch, device: str, address: str | None, free_gpus: int, has_tasks: bool
) -> None:
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)  # as with the wheel for GPUs
    monkeypatch.setattr(nodes, "num_free_gpus", lambda: free_gpus)
    config = Config.model_validate({"index": {"device": device}, "ray": {"address": address}})
    assert (gpu_tasks_of(config) is not None) is has_tasks


def test_wheel_for_cpus_asks_no_cluster_for_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(faiss, "StandardGpuResources", raising=False)
    config = Config.model_validate({"ray": {"address": "10.255.255.1:6379"}})  # where nobody answers
    assert gpu_tasks_of(config) is None


def test_task_without_a_gpu_names_the_setting() -> None:
    tasks = connected_map(RayConfig())
    with pytest.raises(Exception, match=r"index\.device: .* or set index\.device=auto") as caught:
        list(tasks(str, [Gpu()]))
    assert isinstance(known_cause(caught.value), InputError)


def test_cluster_of_cpus_has_no_free_gpu() -> None:
    assert nodes.num_free_gpus() == 0
