"""A Ray session, opened by the first stage that needs it: a running cluster, or a new one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket

import ray

from raysys.config.schema import RayConfig
from raysys.errors import ClusterError

# For Ray and its workers. A variable that is already set keeps its value.
_LOCAL_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a training starts seconds faster
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; silences a warning
    "TOKENIZERS_PARALLELISM": "false",
}

_CONNECT_TIMEOUT_S = 5.0
_START_ATTEMPTS = 3  # Ray limits a start to 30 s, which a busy machine may exceed


def connect(section: RayConfig) -> None:
    """Connect to Ray, if not connected yet: to `ray.address`, RAY_ADDRESS, or a new cluster on this machine.

    Raises: ClusterError if no cluster answers at the address, or a local one does not start.
    """
    if ray.is_initialized():
        return
    address = section.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            _check_reachable(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            _start_local(section)
    except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
        where = (
            f"ray.address {address}: no cluster answers"
            if address
            else "Ray cannot be started on this machine"
        )
        reason = str(error).strip().split("\n")[0][:200]
        raise ClusterError(f"{where} ({reason}); check `ray status`, ray.num_cpus and free memory") from error


def disconnect() -> None:
    """Disconnect; a cluster that `connect` started ends."""
    with contextlib.suppress(ConnectionError):
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Open a TCP connection first, because Ray waits for minutes. Raises: OSError if none answers."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_CONNECT_TIMEOUT_S).close()


def _start_local(section: RayConfig) -> None:
    for name, value in _LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            _init(section)
            return
        except Exception as error:  # Ray has no specific class for this error
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if attempt == _START_ATTEMPTS:
                raise ClusterError(
                    f"ray: no start here within {_START_ATTEMPTS} x 30 s; the machine is too busy, "
                    "try again or set ray.address to a running cluster"
                ) from error


def _init(section: RayConfig) -> None:
    store = section.object_store_megabytes
    ray.init(
        num_cpus=section.num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=store * 2**20 if store else None,
        _node_ip_address="127.0.0.1",  # a local cluster accepts connections of this machine only
    )
