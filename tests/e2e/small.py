"""A very small configuration, and helpers to run `raysys` as a process.

The configuration extends `configs/demo.yaml`, so `raysys demo` with the same settings as overrides reuses all
artifacts of `raysys run`.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
import pyarrow.parquet as pq
import yaml

from raysys.serve.ingress import free_ports

DEMO = Path(__file__).parents[2] / "configs" / "demo.yaml"
NAME = "small"
_WAIT_S = 120.0
SMALL: dict[str, Any] = {
    "name": NAME,
    "catalog": {"num_items": 150, "size_px": 48},
    "pack": {"items_per_shard": 64},
    "encoder": {
        "start": "scratch",
        "scratch": {
            "image_size_px": 32,
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 2,
            "text_num_layers": 1,
            "max_length": 12,
        },
    },
    "train": {
        "workers": 2,
        "epochs": 2,
        "batch_size": 32,
        "checkpoint_every_epochs": 2,
        "validation": {"max_items": 32},
        "robust": {"interpolation_steps": 3, "retention_items": 32},
    },
    "projection": {"dimensions": 16},
    "index": {"kind": "hnsw"},
    "evaluate": {
        "log": {"queries": 60},
        "attribute_precision": None,
        "bootstrap_samples": 200,
        "neighbour_grid_queries": 2,
    },
    "tracking": {"mode": "offline"},
    "ray": {"num_cpus": 8, "object_store_megabytes": 200},
}


_SYSTEMS = "random|popularity|thumbnail|mobilenet_v2|zero_shot|fine_tuned|wise_ft|fine_tuned_pca"
# A stage's label is right-aligned in nine columns; the report's table begins in the first one.
_OURS = re.compile(
    rf" *(pack|train|embed|index|evaluate|result|serve|query|change|report|page|demo|next|draw|scan|write)  \S"
    rf"|({_SYSTEMS}|system) +\S|SIMULATED LOG: |WARNING: |Press Ctrl-C to stop\.$"
)


@dataclass(frozen=True)
class CompletedCommand:
    """Exit status, output and duration of a command."""

    status: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def stage_lines(self) -> list[str]:
        """The result line of each stage."""
        return [line for line in self.stderr.splitlines() if "items/s" in line or "skipped" in line]


def write_config(folder: Path, changes: Mapping[str, Any] | None = None, name: str = "small.yaml") -> Path:
    """The small configuration as a YAML file in `folder`; `changes` replace complete sections."""
    tree = {"extends": str(DEMO), "root": str(folder / "root"), **SMALL, **(changes or {})}
    path = folder / name
    path.write_text(yaml.safe_dump(tree, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def as_overrides(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The settings of a tree as `key=value` overrides."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from as_overrides(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}={'null' if value is None else value}"


def start_raysys(*words: str, log_stem: Path) -> subprocess.Popen[bytes]:
    """Start `raysys` in its own process group, with output to `<stem>.out` and `<stem>.err`."""
    out, err = log_stem.with_suffix(".out"), log_stem.with_suffix(".err")
    with out.open("wb") as stdout, err.open("wb") as stderr:
        return subprocess.Popen(
            [sys.executable, "-m", "raysys", *words],
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )


def run_raysys(*words: str, folder: Path, timeout_s: float = 240) -> CompletedCommand:
    """Run `raysys` until it exits; after the timeout, kill its process group."""
    started = time.monotonic()
    log_stem = folder / f"{words[0]}-{time.monotonic_ns()}"
    process = start_raysys(*words, log_stem=log_stem)
    try:
        process.wait(timeout_s)
    finally:
        kill_group(process)
    out, err = (log_stem.with_suffix(suffix).read_text(encoding="utf-8") for suffix in (".out", ".err"))
    return CompletedCommand(process.returncode, out, err, time.monotonic() - started)


def foreign_lines(stderr: str) -> list[str]:
    """The lines that raysys did not print itself."""
    return [line for line in stderr.splitlines() if not _OURS.match(line)]


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """Kill a running process and the rest of its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def processes(pid: int, name: str) -> set[psutil.Process]:
    """The processes below a command whose names or commands contain `name`."""
    return {
        process
        for process in psutil.Process(pid).children(recursive=True)
        if name in " ".join(cmdline_of(process))
    }


def kill_one(pid: int, name: str) -> None:
    """`kill -9` of one of these processes; returns when another one is in its place, and its children ended."""
    before = processes(pid, name)
    victim = next(iter(before))
    children = victim.children(recursive=True)
    victim.kill()
    wait_for(lambda: have_ended(children))
    wait_for(lambda: len(processes(pid, name) - {victim}) == len(before))


def cmdline_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:  # it ended
        return []


def have_ended(processes: Collection[psutil.Process]) -> bool:
    return all(_has_ended(process) for process in processes)


def _has_ended(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def free_port() -> int:
    """A free loopback port."""
    [port] = free_ports(1)
    return port


def stored_vectors(root: Path) -> dict[str, np.ndarray]:
    """Item id to vector, for all vectors that the index was built from."""
    files = sorted((root / "embeddings" / f"{NAME}-pca").glob("version-*/*.parquet"))
    rows = [row for path in files for row in pq.read_table(path).select(["item_id", "embedding"]).to_pylist()]
    return {row["item_id"]: np.array(row["embedding"]) for row in rows}


def exported_metrics(pid: int) -> str:
    """What the node exports to Prometheus; `pid` is the process that started Ray."""
    # Ray ends the name of a session with the process that started it; an earlier one had the same number.
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir(), "ray")
    ports = folder.glob(f"session_*_{pid}/metrics_export_port_*")
    port_file = max(ports, key=lambda path: path.stat().st_mtime)
    return httpx.get(f"http://127.0.0.1:{port_file.read_text()}/metrics", timeout=30).text
