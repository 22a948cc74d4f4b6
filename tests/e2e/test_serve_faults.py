"""`kill -9` of one process after the other of a running service, under load; nothing is done by hand.

Gateways and searchers: `test_switch.py`. Everything at once: `test_changes.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.load import Load, require_found
from tests.e2e.small import kill_one, processes

# Of the service's processes, and whether requests go on while one of them is gone.
VICTIMS = {
    "ray::ServeController": True,
    "ray::ProxyActor": True,  # the one that requests wait in while there is no gateway
    "ServeReplica:raysys:Encoder": True,
    "raysys.store.log_server": True,
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
            load.wait_for_requests()
            kill_one(pid, name)
            load.wait_for_requests()
        assert load.failures == []
        if goes_on:
            assert len(load.retried) <= 3  # those that the process worked on, one of each client
        print(f"{name}: {load.num_requests} requests, the slowest {load.longest_s:.1f} s, {load.retried}")
        require_found(url, load.acknowledged)
    assert len(processes(pid, "bin/haproxy")) == 1
