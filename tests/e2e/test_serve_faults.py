"""`kill -9` of one process after the other of a running service, under load; nothing is done by hand.

Gateways and searchers: `test_switch.py`. Everything at once: `test_changes.py`.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.e2e.load import Load
from tests.e2e.small import have_ended, processes, wait_for

# Of the service's processes, and whether requests go on while one of them is gone.
VICTIMS = {
    "ray::ServeController": True,
    "ray::ProxyActor": True,  # the one that requests wait in while there is no gateway
    "ServeReplica:raysys:Encoder": True,
    "bin/haproxy": False,
    "ray::HAProxyManager": False,
}
RETRY_S = 60.0  # on a machine that does nothing else, HAProxy is back after 6 s


@pytest.mark.slow  # two minutes
@pytest.mark.parametrize("service", [{"encoder_replicas": 2}], indirect=True)
def test_killed_processes_come_back_and_lose_nothing(
    service: tuple[str, Path, int],
) -> None:
    url, _, pid = service
    for name, goes_on in VICTIMS.items():
        with Load(url, RETRY_S) as load:
            wait_for_requests(load)
            kill_one(pid, name)
            wait_for_requests(load)
        assert load.failures == []
        if goes_on:
            assert len(load.retried) <= 3  # those that the process worked on, one of each client
        print(f"{name}: {load.num_requests} requests, the slowest {load.longest_s:.1f} s, {load.retried}")
        require_found(url, load.acknowledged)
    assert len(processes(pid, "bin/haproxy")) == 1


def wait_for_requests(load: Load) -> None:
    num_before = load.num_requests
    wait_for(lambda: load.num_requests > num_before + 50)


def kill_one(pid: int, name: str) -> None:
    """`kill -9` of one of these processes; returns when another one is in its place, and its children ended."""
    before = processes(pid, name)
    victim = next(iter(before))
    children = victim.children(recursive=True)
    victim.kill()
    wait_for(lambda: have_ended(children))
    wait_for(lambda: len(processes(pid, name) - {victim}) == len(before))


def require_found(url: str, changes: dict[str, int]) -> None:
    """Every acknowledged item is found."""
    assert changes
    with httpx.Client(base_url=url, timeout=60) as client:
        wait_for(lambda: client.get("/readyz").json().get("last_change", 0) >= max(changes.values()))
        for item_id in changes:
            assert client.get(f"/v1/items/{item_id}/similar").status_code == httpx.codes.OK, item_id
