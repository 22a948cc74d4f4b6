"""The manifests in `cluster/` against Ray itself: its schema of serveConfigV2, version and environment variables."""

from __future__ import annotations

import inspect
import types
import typing
import warnings
from pathlib import Path
from typing import Any

import ray
import yaml
from pydantic import BaseModel

with warnings.catch_warnings():
    # Ray 2.60 declares its models in a form that pydantic deprecates.
    warnings.simplefilter("ignore")
    import ray.serve._private.constants
    from ray.serve.schema import ServeDeploySchema

CLUSTER = Path(__file__).parents[2] / "cluster"


def test_serve_config_is_accepted_by_ray() -> None:
    deploy = ServeDeploySchema.model_validate(serve_config())
    [application] = deploy.applications
    assert application.import_path == "raysys.serve.app:build"
    assert application.args == {"config": "/etc/raysys/config.yaml"}
    assert [deployment.name for deployment in application.deployments] == ["Gateway", "Encoder", "Searcher"]


def test_serve_config_has_no_key_that_ray_ignores() -> None:
    assert unknown_keys(serve_config(), ServeDeploySchema) == []


def test_unknown_keys_finds_keys_that_ray_ignores() -> None:
    broken = serve_config()
    encoder = broken["applications"][0]["deployments"][1]
    encoder["max_onging_requests"] = 8
    encoder["ray_actor_options"]["num_gpu"] = 1
    ServeDeploySchema.model_validate(broken)  # Ray ignores them
    assert unknown_keys(broken, ServeDeploySchema) == [
        "applications.0.deployments.1.max_onging_requests",
        "applications.0.deployments.1.ray_actor_options.num_gpu",
    ]


def test_manifests_name_the_tested_version_of_ray() -> None:
    files = ("raycluster.yaml", "rayjob.yaml", "rayservice.yaml")
    texts = [(CLUSTER / file).read_text(encoding="utf-8") for file in files]
    assert all(f'rayVersion: "{ray.__version__}"\n' in text for text in texts)


def test_serve_variables_of_the_service_exist_in_ray() -> None:
    spec = yaml.safe_load((CLUSTER / "rayservice.yaml").read_text(encoding="utf-8"))["spec"][
        "rayClusterConfig"
    ]
    variables = spec["headGroupSpec"]["template"]["spec"]["containers"][0]["env"]
    names = {each["name"] for each in variables if each["name"].startswith("RAY_SERVE_")}
    assert names
    source = inspect.getsource(ray.serve._private.constants)
    assert [name for name in names if f'"{name}"' not in source] == []


def serve_config() -> dict[str, Any]:
    service = yaml.safe_load((CLUSTER / "rayservice.yaml").read_text(encoding="utf-8"))
    config: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    return config


def unknown_keys(value: object, annotation: object, path: str = "") -> list[str]:
    """Dotted keys of `value` that no model of `annotation` declares; mappings without a model are not checked."""
    if isinstance(value, list):
        return [key for i, each in enumerate(value) for key in unknown_keys(each, annotation, f"{path}{i}.")]
    models = models_in(annotation)
    if not isinstance(value, dict) or not models:
        return []
    fields = {name: field for model in models for name, field in model.model_fields.items()}
    unknown = [f"{path}{key}" for key in value if key not in fields]
    for key in value.keys() & fields.keys():
        unknown += unknown_keys(value[key], fields[key].annotation, f"{path}{key}.")
    return unknown


def models_in(annotation: object) -> list[type[BaseModel]]:
    """The models of a field: its own type, the members of a union, or the elements of a list."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, list):
        return [model for part in typing.get_args(annotation) for model in models_in(part)]
    return []
