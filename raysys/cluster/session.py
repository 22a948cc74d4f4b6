"""A Ray session, started when the first stage needs one: a named cluster, or one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket

import ray

from raysys.config.schema import RayConfig
from raysys.errors import ClusterError

# Ray reads these at import or start. Quiet logs and no usage statistics; training
# workers are looked after five times a second, which makes a start seconds faster.
_LOCAL_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",
}

_ANSWER_TIMEOUT_S = 5.0
_START_ATTEMPTS = 3  # Ray gives a start 30 s, which a busy machine may not keep


def connect(section: RayConfig) -> None:
    """Be connected to Ray; a second call does nothing.

    Raises: ClusterError if no cluster answers at the address, or none can be started here.
    """
    if ray.is_initialized():
        return
    address = section.address or os.environ.get("RAY_ADDRESS")
    try:
        if address:
            _require_answer(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        else:
            _start_here(section)
    except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
        where = (
            f"ray.address {address}: no cluster answers"
            if address
            else "Ray cannot be started on this machine"
        )
        reason = str(error).strip().split("\n")[0][:200]
        raise ClusterError(f"{where} ({reason}); check `ray status`, ray.num_cpus and free memory") from error


def disconnect() -> None:
    """Leave the cluster; one that was started here ends."""
    with contextlib.suppress(ConnectionError):
        ray.shutdown()


def _require_answer(address: str) -> None:
    """A plain connection first: Ray itself would wait for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host, int(port)), timeout=_ANSWER_TIMEOUT_S).close()


def _start_here(section: RayConfig) -> None:
    for name, value in _LOCAL_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    for attempt in range(1, _START_ATTEMPTS + 1):
        try:
            _init(section)
            return
        except Exception as error:  # Ray has no class of its own for it
            ray.shutdown()
            if "timed out during startup" not in str(error):
                raise
            if attempt == _START_ATTEMPTS:
                raise ClusterError(
                    f"ray: did not start here within {_START_ATTEMPTS} x 30 s; the machine is too busy, "
                    "try again or give ray.address of a cluster"
                ) from error


def _init(section: RayConfig) -> None:
    store = section.object_store_megabytes
    ray.init(
        num_cpus=section.num_cpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=store * 2**20 if store else None,
        _node_ip_address="127.0.0.1",  # a cluster on a laptop listens to nobody else
    )
