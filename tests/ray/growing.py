"""An autoscaling cluster on this machine: its head starts another node on request, as in a cloud."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

RAY = Path(sys.executable).with_name("ray")
STORE_BYTES = 150 * 2**20


@contextlib.contextmanager
def growing_cluster(head_cpus: int, node_resources: dict[str, float]) -> Iterator[str]:
    """The address of the head; the cluster grows by at most one node with these resources."""
    # Not below pytest's folder: the path of a socket is limited to 107 characters.
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        config, port = Path(folder, "autoscaler.json"), _free_port()
        address = f"127.0.0.1:{port}"
        config.write_text(json.dumps(_autoscaling(address, head_cpus, node_resources)))
        command = [
            *(str(RAY), "start", "--head", f"--port={port}", "--node-ip-address=127.0.0.1"),
            *(f"--num-cpus={head_cpus}", f"--object-store-memory={STORE_BYTES}", f"--temp-dir={folder}"),
            *("--include-dashboard=false", "--disable-usage-stats", f"--autoscaling-config={config}"),
        ]
        # Ray's node provider for tests of autoscaling.
        environment = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1"}
        try:
            subprocess.run(command, env={**os.environ, **environment}, check=True, stdout=subprocess.DEVNULL)
            yield address
        finally:
            _kill_processes_of(folder)


def _autoscaling(address: str, head_cpus: int, node_resources: dict[str, float]) -> dict[str, Any]:
    node = {
        "resources": {**node_resources, "object_store_memory": STORE_BYTES},
        "node_config": {},
        "min_workers": 0,
        "max_workers": 1,
    }
    head = {"resources": {"CPU": head_cpus}, "node_config": {}, "max_workers": 0}
    provider = {
        "type": "fake_multinode",
        "gcs_address": address,
        "use_node_id_as_ip": True,  # all nodes have the same IP address
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    commands = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "growing",
        "max_workers": 1,
        "idle_timeout_minutes": 5,
        "upscaling_speed": 1.0,
        "provider": provider,
        "head_node_type": "ray.head.default",
        "available_node_types": {"ray.head.default": head, "node": node},
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        **{f"{name}_commands": [] for name in commands},
    }


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def _kill_processes_of(folder: str) -> None:
    """Kill every process with this folder in its command line."""
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if folder.encode() in (path / "cmdline").read_bytes():
                    os.kill(int(path.name), signal.SIGKILL)
