"""The deployments of a configuration: which there are, and how many replicas they have."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest

from raysys.config import Config
from raysys.errors import InputError
from tests.unit.serve.shop import Shop

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # of pydantic, by the import of Ray Serve
    from ray.serve._private.build_app import build_app

    from raysys.serve.app import bind
    from raysys.serve.gateway_scaling import POLICY


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    shop = Shop(tmp_path, monkeypatch, num_files=2)
    shop.publish(1)
    return shop


def deployments(shop: Shop, **settings: Any) -> dict[str, Any]:
    """The deployments of the service, by name."""
    config = Config.model_validate({**shop.config.model_dump(), "serve": settings})
    application = build_app(bind(config), name="raysys", route_prefix="/")
    return {deployment.name: deployment for deployment in application.deployments}


@pytest.mark.parametrize(
    ("settings", "searchers"),
    [
        ({}, set()),
        ({"search_replicas": 2}, {"Searcher"}),
        ({"max_search_replicas": 2}, {"Searcher"}),
        ({"search_partitions": 2}, {"Searcher-0", "Searcher-1"}),
    ],
)
def test_index_has_a_deployment_for_each_partition(
    shop: Shop, settings: dict[str, int], searchers: set[str]
) -> None:
    assert deployments(shop, **settings).keys() == {"Gateway", "Encoder", "Coordinator"} | searchers


def test_numbers_of_replicas_are_fixed_unless_they_may_grow(shop: Shop) -> None:
    fixed = deployments(shop, gateway_replicas=3, encoder_replicas=2, search_replicas=4, search_partitions=2)
    assert {name: one.num_replicas for name, one in fixed.items()} == {
        "Gateway": 3, "Encoder": 2, "Searcher-0": 4, "Searcher-1": 4, "Coordinator": 1,
    }  # fmt: skip
    grows = deployments(
        shop, gateway_replicas=2, max_gateway_replicas=5, max_encoder_replicas=3,
        max_encoder_requests=14, max_search_replicas=4, search_threads=6,
    )  # fmt: skip
    scaling = {name: one._deployment_config.autoscaling_config for name, one in grows.items()}
    assert {
        name: (one.min_replicas, one.max_replicas, one.target_ongoing_requests)
        for name, one in scaling.items()
        if one is not None and name != "Gateway"
    } == {"Encoder": (1, 3, 7), "Searcher": (1, 4, 6)}
    gateway = scaling["Gateway"]
    assert gateway is not None
    assert (gateway.min_replicas, gateway.max_replicas) == (2, 5)
    assert gateway.policy.policy_function == POLICY


def test_fewer_replicas_at_most_than_at_least_are_refused(shop: Shop) -> None:
    with pytest.raises(ValueError, match=r"max_gateway_replicas is 2, less than gateway_replicas \(3\)"):
        deployments(shop, gateway_replicas=3, max_gateway_replicas=2)


def test_more_partitions_than_files_are_refused_before_the_start(shop: Shop) -> None:
    with pytest.raises(InputError, match=r"3 search partitions need as many FAISS files, found 2"):
        deployments(shop, search_partitions=3)
