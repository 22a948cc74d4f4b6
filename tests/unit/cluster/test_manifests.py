"""The manifests in `cluster/` against KubeRay's schemas and against the requirements of raysys."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from raysys.cluster.capacity import Node, num_cores, shortfall
from raysys.config import Config, load_config
from raysys.embed.job import encoder_demand
from raysys.stream.concurrency import choose_concurrency, demands
from raysys.train.monitor.capacity import worker_demand

ROOT = Path(__file__).parents[3]
SCHEMAS = json.loads((ROOT / "tests/data/kuberay/schemas.json").read_text(encoding="utf-8"))
KUBERAY_FILES = ("raycluster.yaml", "rayjob.yaml", "rayservice.yaml")
POD_NAMES = (
    *("raycluster/head", "raycluster/cpu", "raycluster/gpu"),
    *("rayjob/head", "rayjob/gpu"),
    *("rayservice/head", "rayservice/serve"),
)


@pytest.mark.parametrize("file", KUBERAY_FILES)
def test_manifest_conforms_to_kuberay_s_schema(file: str) -> None:
    validate(manifest(file))


def test_misspelt_key_in_a_container_is_refused() -> None:
    broken = copy.deepcopy(manifest("rayjob.yaml"))
    container = broken["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]
    container["volumeMount"] = []
    with pytest.raises(jsonschema.ValidationError, match="'volumeMount' was unexpected"):
        validate(broken)


def test_worker_group_without_max_replicas_is_refused() -> None:
    broken = copy.deepcopy(manifest("raycluster.yaml"))
    del broken["spec"]["workerGroupSpecs"][0]["maxReplicas"]
    with pytest.raises(jsonschema.ValidationError, match="'maxReplicas' is a required property"):
        validate(broken)


def test_every_manifest_is_checked() -> None:
    assert {path.name for path in (ROOT / "cluster").glob("*.yaml")} == {*KUBERAY_FILES, "config.yaml"}
    assert tuple(pods()) == POD_NAMES


@pytest.mark.parametrize("name", POD_NAMES)
def test_pod_requests_equal_its_limits(name: str) -> None:
    for container in pods()[name]["containers"]:
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert {"cpu", "memory"} <= set(container["resources"]["limits"])


@pytest.mark.parametrize("name", POD_NAMES)
def test_pod_has_shared_memory_within_its_limit(name: str) -> None:
    pod = pods()[name]
    [container] = pod["containers"]
    [mount] = [mount for mount in container["volumeMounts"] if mount["mountPath"] == "/dev/shm"]
    [volume] = [volume for volume in pod["volumes"] if volume["name"] == mount["name"]]
    assert volume["emptyDir"]["medium"] == "Memory"
    # Ray's object store takes 30 % of the memory; with a smaller /dev/shm it would use the disk.
    share = gibibytes(volume["emptyDir"]["sizeLimit"]) / gibibytes(container["resources"]["limits"]["memory"])
    assert 0.30 < share < 0.35


@pytest.mark.parametrize("name", POD_NAMES)
def test_pod_mounts_the_configuration_and_is_not_root(name: str) -> None:
    pod = pods()[name]
    config_map = manifest("config.yaml")["metadata"]["name"]
    assert {"name": "config", "configMap": {"name": config_map}} in pod["volumes"]
    assert {"name": "config", "mountPath": "/etc/raysys", "readOnly": True} in pod["containers"][0][
        "volumeMounts"
    ]
    assert pod["securityContext"]["runAsNonRoot"] is True


def test_all_manifests_and_docs_name_the_same_image() -> None:
    images = {container["image"] for pod in pods().values() for container in pod["containers"]}
    texts = [(ROOT / "cluster" / file).read_text(encoding="utf-8") for file in ("Dockerfile", "README.md")]
    named = {
        image for text in texts for image in re.findall(r"registry\.example\.com/raysys:[\w.-]*\w", text)
    }
    assert images == named == {"registry.example.com/raysys:0.1.0"}


def test_secrets_come_from_secret_references() -> None:
    for pod in pods().values():
        for variable in pod["containers"][0]["env"]:
            if variable["name"].endswith(("KEY", "TOKEN", "PASSWORD")):
                assert "secretKeyRef" in variable["valueFrom"]


@pytest.mark.parametrize("name", ["rayservice/head", "rayservice/serve"])
def test_service_mounts_its_tokens_where_the_configuration_reads_them(name: str) -> None:
    pod = pods()[name]
    assert {"name": "tokens", "secret": {"secretName": "raysys-api-tokens"}} in pod["volumes"]
    [mount] = [mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "tokens"]
    assert mount["readOnly"] is True
    assert configuration().serve.tokens_file == f"{mount['mountPath']}/tokens.yaml"


def test_every_cluster_requires_the_same_token() -> None:
    assert {json.dumps(spec["authOptions"]) for spec in cluster_specs().values()} == {
        '{"mode": "token", "secretName": "raysys-token"}'
    }


def test_heads_run_no_tasks() -> None:
    assert {spec["headGroupSpec"]["rayStartParams"]["num-cpus"] for spec in cluster_specs().values()} == {"0"}


def test_service_survives_its_head_and_one_worker() -> None:
    spec = cluster_specs()["rayservice"]
    assert (
        spec["gcsFaultToleranceOptions"]["redisPassword"]["valueFrom"]["secretKeyRef"]["name"]
        == "raysys-redis"
    )
    [group] = spec["workerGroupSpecs"]
    for deployment in serve_deployments():
        assert deployment["max_replicas_per_node"] == 1
        assert 2 <= deployment["num_replicas"] <= group["minReplicas"]


def test_serve_variables_are_set_on_all_pods() -> None:
    head, worker = (serve_variables(pods()[name]) for name in ("rayservice/head", "rayservice/serve"))
    assert head == worker
    assert head["RAY_SERVE_ENABLE_HA_PROXY"] == "1"
    # The largest photo that the gateway accepts fits into one message.
    largest = configuration().serve.max_image_megabytes * 1e6
    assert int(head["RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"]) > largest


def test_one_replica_of_each_deployment_fits_a_worker() -> None:
    limits = pods()["rayservice/serve"]["containers"][0]["resources"]["limits"]
    options = [deployment["ray_actor_options"] for deployment in serve_deployments()]
    assert sum(each["num_cpus"] for each in options) <= int(limits["cpu"])
    assert sum(each.get("num_gpus", 0) for each in options) <= int(limits["nvidia.com/gpu"])


def test_configuration_loads_and_matches_the_manifests(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(manifest("config.yaml")["data"]["config.yaml"], encoding="utf-8")
    config = load_config(str(tmp_path / "config.yaml"))
    assert config.root.startswith("s3://")
    replicas = {each["name"]: each["num_replicas"] for each in serve_deployments()}
    assert replicas["Encoder"] == config.serve.encoder_replicas
    assert replicas["Searcher"] == config.serve.search_replicas
    for name in ("rayjob/gpu", "raycluster/gpu"):
        gpus = int(pods()[name]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
        assert gpus >= max(config.train.workers, config.embed.actors)


@pytest.mark.parametrize("recipe", ["cluster/config.yaml", "configs/siglip_b16_8xh100.yaml"])
@pytest.mark.parametrize("manifest_name", ["rayjob", "raycluster"])
@pytest.mark.parametrize("stage", ["train", "embed"])
def test_shipped_recipe_fits_its_pods_and_uses_their_cpus(
    recipe: str, manifest_name: str, stage: str
) -> None:
    """The decoders of a recipe once held all 96 CPUs, and no photo was read."""
    config = configuration() if recipe.startswith("cluster") else load_config(str(ROOT / recipe))
    nodes = nodes_of(manifest_name)
    compute = worker_demand(config.train, nodes) if stage == "train" else encoder_demand(config.embed, nodes)
    assert shortfall(nodes, demands(config.stream, compute), is_local=False) is None
    cores = num_cores(nodes, here="head", cores_here=8)
    decoders, readers = choose_concurrency(config.stream, nodes, compute, cores=cores)
    set_by_hand = config.stream.model_copy(
        update={"decode_concurrency": decoders, "read_concurrency": readers}
    )
    assert shortfall(nodes, demands(set_by_hand, compute), is_local=False) is None
    # 78 decoders of 250 photos of 0.3 Mpx a second each: the 20,000 a second that eight H100 take
    assert 78 <= decoders < cores - 8
    assert readers >= 9


def test_job_runs_the_mounted_configuration() -> None:
    spec = manifest("rayjob.yaml")["spec"]
    assert spec["entrypoint"] == "python -m raysys run /etc/raysys/config.yaml"
    assert (spec["shutdownAfterJobFinishes"], spec["backoffLimit"]) == (True, 2)


def validate(document: dict[str, Any]) -> None:
    schema = {**SCHEMAS[document["kind"]], "definitions": SCHEMAS["definitions"]}
    jsonschema.Draft7Validator(schema).validate(document)


def manifest(file: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / "cluster" / file).read_text(encoding="utf-8"))
    return document


def configuration() -> Config:
    return Config.model_validate(yaml.safe_load(manifest("config.yaml")["data"]["config.yaml"]))


def cluster_specs() -> dict[str, dict[str, Any]]:
    """File stem -> the part that describes a Ray cluster."""
    specs = {Path(file).stem: manifest(file)["spec"] for file in KUBERAY_FILES}
    return {
        stem: spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec
        for stem, spec in specs.items()
    }


def pods() -> dict[str, dict[str, Any]]:
    """`file/group` -> pod spec."""

    def named_pods() -> Iterator[tuple[str, dict[str, Any]]]:
        for stem, spec in cluster_specs().items():
            yield f"{stem}/head", spec["headGroupSpec"]["template"]["spec"]
            for group in spec["workerGroupSpecs"]:
                yield f"{stem}/{group['groupName']}", group["template"]["spec"]

    return dict(named_pods())


def nodes_of(manifest_name: str) -> list[Node]:
    """The Ray nodes of a manifest, with one replica of each group at least."""
    spec = cluster_specs()[manifest_name]
    nodes = [Node("head", {"CPU": float(spec["headGroupSpec"]["rayStartParams"]["num-cpus"])})]
    for group in spec["workerGroupSpecs"]:
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        resources = {"CPU": float(limits["cpu"]), "GPU": float(limits.get("nvidia.com/gpu", 0))}
        nodes += [Node(group["groupName"], resources)] * max(1, group["minReplicas"])
    return nodes


def serve_deployments() -> list[dict[str, Any]]:
    [application] = yaml.safe_load(manifest("rayservice.yaml")["spec"]["serveConfigV2"])["applications"]
    deployments: list[dict[str, Any]] = application["deployments"]
    return deployments


def serve_variables(pod: dict[str, Any]) -> dict[str, str]:
    variables = pod["containers"][0]["env"]
    return {each["name"]: each["value"] for each in variables if each["name"].startswith("RAY_SERVE_")}


def gibibytes(quantity: str) -> float:
    assert quantity.endswith("Gi"), quantity
    return float(quantity.removesuffix("Gi"))
