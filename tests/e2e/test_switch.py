"""A running service under load gets a new pair of encoder and index, goes back, and loses a replica."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from raysys.serve.versions import published
from tests.e2e.load import Load
from tests.e2e.small import kill_one, run_raysys
from tests.unit.serve.shop import Shop

NUM_REPLICAS = 2


@pytest.mark.slow  # about a minute each
@pytest.mark.parametrize(
    ("service", "name"),
    [
        ({"gateway_replicas": NUM_REPLICAS}, "Gateway"),
        ({"search_replicas": NUM_REPLICAS}, "Searcher"),
        ({"search_replicas": NUM_REPLICAS, "search_partitions": 2}, "Searcher-1"),
    ],
    indirect=["service"],
)
def test_switch_rollback_and_a_killed_replica_under_load(
    shop: Shop, service: tuple[str, Path, int], name: str
) -> None:
    url, config, pid = service
    old = published(shop.config, 1)
    shop.publish(2, with_changes=True)
    new = published(shop.config, 2)
    with Load(url) as load:
        switched = run_raysys("serve", str(config), "--switch", folder=config.parent)
        assert (switched.status, switched.stdout) == (
            0,
            f"index {old.index_version} -> {new.index_version}\n",
        ), switched.stderr
        load.wait_for_requests()
        back = run_raysys("serve", str(config), "--rollback", folder=config.parent)
        assert back.stdout == f"index {new.index_version} -> {old.index_version}\n", back.stderr
        forth = run_raysys("serve", str(config), "--rollback", folder=config.parent)
        assert forth.status == 0, forth.stderr
    assert load.failures == load.retried == []
    assert set(load.seen) == {(pair.space_id, pair.index_version) for pair in (old, new)}
    print(f"{load.num_requests} requests, {dict(load.seen)}")

    with Load(url) as load:
        kill_one(pid, f"ServeReplica:raysys:{name}")
        load.wait_for_requests()
    assert load.failures == []
    assert set(load.seen) == {(new.space_id, new.index_version)}
    print(f"{load.num_requests} requests after kill -9 of a {name}, a second time: {load.retried}")

    shop.publish(3)
    damaged = Path(published(shop.config, 3).index_uri)
    file = min(damaged.glob("*.faiss"))
    file.write_bytes(file.read_bytes()[:-1] + b"\x55")
    refused = run_raysys("serve", str(config), "--switch", folder=config.parent)
    assert refused.status == 1
    assert f"index {new.index_version} serves on" in refused.stderr.splitlines()[-1]
    assert httpx.get(f"{url}readyz", timeout=60).json()["space_id"] == new.space_id
