"""`raysys index`: builds an IndexBundle with measured recall from an EmbeddingSet."""

from __future__ import annotations

from raysys.artifacts import ArtifactSpec, Manifest, specs
from raysys.artifacts.build import Step
from raysys.config import Config
from raysys.index.changes import ChangeSource
from raysys.parallel import Parallel
from raysys.store.url import store_url


def steps(config: Config) -> list[Step]:
    """One step: the index of the served embeddings, or of `index.embeddings`."""

    def build(spec: ArtifactSpec) -> Manifest:
        from raysys.cluster.task_map import connected_map
        from raysys.index.build import publish_index

        embeddings = specs.served_embeddings(config)
        parallel, gpu_tasks = connected_map(config.ray), gpu_tasks_of(config)
        changes = change_source(config, spec)
        return publish_index(spec, embeddings, config.index, parallel, gpu_tasks, changes)

    return [Step.single(specs.served_index(config), lambda: specs.index(config), build)]


def change_source(config: Config, spec: ArtifactSpec) -> ChangeSource | None:
    """The changes that the spec of an index has among its inputs; None without a change."""
    if specs.CHANGES not in spec.inputs:
        return None
    up_to = int(spec.inputs[specs.CHANGES].fingerprint)
    return ChangeSource(store_url(config), config.store.timeout_s, up_to)


def gpu_tasks_of(config: Config) -> Parallel | None:
    """Ray tasks with a GPU each, if this process has none and a running cluster has; otherwise None.

    `index.device: auto` takes a free GPU only, and asks for none with the wheel of FAISS for CPUs, which the
    workers have, too; `gpu` waits for nodes with one.
    Raises: InputError for `gpu` if the cluster has none in time.
    """
    from raysys.cluster import nodes, session
    from raysys.cluster.capacity import Demand
    from raysys.cluster.task_map import connected_map
    from raysys.index.device import CPU, device_of, has_gpu_wheel

    device = config.index.device
    if device == "cpu" or device_of("auto") is not CPU or not session.may_grow(config.ray):
        return None
    if device == "auto" and not has_gpu_wheel():
        return None
    session.connect(config.ray)
    if device == "auto" and nodes.num_free_gpus() < 1:
        return None
    if device == "gpu":
        each = {"CPU": 1.0, "GPU": 1.0}
        demand = Demand(1, "task", "index.device", each, ("set index.device=cpu",))
        nodes.wait_for_nodes("index", lambda _: [demand], may_grow=True)
    return connected_map(config.ray, num_gpus=1)
