"""A Ray session, opened by the first stage that needs it: a running cluster, or a new one on this machine."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import tempfile

import grpc  # type: ignore[import-untyped]  # it has no types
import ray
from ray._private.grpc_utils import init_grpc_channel  # with the TLS settings of the environment

from raysys.config.schema import RayConfig
from raysys.errors import ClusterError
from raysys.parallel import TimeLimitExceeded, call_within
from raysys.signals import without_abort_at_sigterm

# For Ray and its workers. A variable that is already set keeps its value.
_LOCAL_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # a training starts seconds faster
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # Ray's future default; silences a warning
    "TOKENIZERS_PARALLELISM": "false",
}

# Ray's sockets lie in `<temporary folder>/ray/session_<time>_<pid>/sockets/`; the system limits such a path.
_MAX_SOCKET_PATH, _RAY_SUFFIX_BYTES = 107, 70
_SHORT_TEMPORARY_FOLDER = "/tmp/ray"
_START_ATTEMPTS = 3  # Ray limits a start to 30 s, which a busy machine may exceed


def may_grow(section: RayConfig) -> bool:
    """Whether the cluster is not one that this process starts, so that nodes may be added to it."""
    return _address(section) is not None


def connect(section: RayConfig) -> None:
    """Connect to Ray, if not connected yet: to `ray.address`, RAY_ADDRESS, or a new cluster on this machine.

    Raises: ClusterError if no cluster answers at the address, or a local one does not start.
    """
    if ray.is_initialized():
        return
    address = _address(section)
    try:
        with without_abort_at_sigterm():
            if address:
                _require_cluster(address, section.connect_timeout_s)
                ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
            else:
                _start_local(section)
    except (ConnectionError, ValueError, RuntimeError, OSError, TimeoutError) as error:
        reason = str(error).strip().split("\n")[0][:200]
        if address:
            raise ClusterError(
                f"ray.address {address}: no cluster answers ({reason}); check it with `ray status`; its "
                "port is 6379 unless set otherwise (8265 is the dashboard)"
            ) from error
        advice = _start_advice(error)
        raise ClusterError(f"Ray cannot be started on this machine ({reason}); {advice}") from error


def disconnect() -> None:
    """Disconnect; a cluster that `connect` started ends."""
    with contextlib.suppress(ConnectionError):
        ray.shutdown()


def _address(section: RayConfig) -> str | None:
    return section.address or os.environ.get("RAY_ADDRESS") or None


def _start_advice(error: Exception) -> str:
    path = str(getattr(error, "filename", None) or "")
    if not path:
        return "check ray.num_cpus and free memory"
    if path.startswith(os.path.join(os.path.expanduser("~"), ".ray")):
        return (
            "Ray keeps its token in HOME; set HOME to a folder that can be written, or RAY_AUTH_MODE=disabled"
        )
    return "Ray needs a temporary folder that can be written; set TMPDIR to one"


def _require_cluster(address: str, timeout_s: float) -> None:
    """Exchange the first messages of gRPC, the protocol of Ray, because `ray.init` itself waits for minutes.

    Raises: OSError if nothing listens there, TimeoutError if it does not speak gRPC.
    """
    target = address.removeprefix("ray://")
    host, colon, port = target.rpartition(":")
    if not (colon and port.isdigit()):
        return  # `auto`, `local`: Ray looks for the cluster
    socket.create_connection((host.strip("[]"), int(port)), timeout=timeout_s).close()
    channel = init_grpc_channel(target)
    try:
        ready = grpc.channel_ready_future(channel)
        call_within(timeout_s, ready.result, f"ray.address {address}")
    except TimeLimitExceeded as error:
        raise TimeoutError(
            f"it accepts connections but gave no answer of Ray within {timeout_s:g} s, ray.connect_timeout_s"
        ) from error
    finally:
        channel.close()


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
        _temp_dir=_temporary_folder(),
    )


def _temporary_folder() -> str | None:
    """A short folder if Ray's sockets would have too long a path in the default one; None for the default."""
    default = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    is_short = len(os.fsencode(default)) + _RAY_SUFFIX_BYTES <= _MAX_SOCKET_PATH
    return None if is_short else _SHORT_TEMPORARY_FOLDER
