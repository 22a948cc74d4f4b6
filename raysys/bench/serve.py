"""`raysys serve` under load: queries per second at saturation, and latency at low load.

k6 (https://k6.io) sends requests at a constant rate, at higher and higher rates until the service answers
less than the load. The baseline is `bare_service.py`. Item queries need no encoder; photo queries
upload photos. The limit of the latter is the encoder alone, in batches of `serve.max_batch_size`.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest, IndexBundleManifest, specs
from raysys.bench import index_data
from raysys.bench.config import BenchConfig, BenchRunConfig
from raysys.bench.cpu_time import cpu_seconds
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.bench.models import write_start
from raysys.bench.photos import photo_like
from raysys.config import load_config
from raysys.encoder import start
from raysys.encoder.bundle import open_bundle, publish_bundle
from raysys.errors import ClusterError, InputError
from raysys.index.build import publish_index
from raysys.synth import generate_items

RAYSYS, BASELINE, LIMIT = "raysys serve", "FastAPI and FAISS, one process", "encoder alone"
_SEED, _NUM_PHOTOS = 7, 16
_START_TIMEOUT_S, _STOP_TIMEOUT_S = 300.0, 60.0
_MIN_SHARE = 0.95  # of the load; a service that answers less is saturated
_ROLES = {
    "haproxy": "haproxy",
    "gateway": "ServeReplica:raysys:Gateway",
    "searcher": "ServeReplica:raysys:Searcher",
    "encoder": "ServeReplica:raysys:Encoder",
}


@dataclass(frozen=True)
class ServeWork:
    """What is served, and the load."""

    config_path: Path
    encoder_uri: str
    index_uri: str
    bench: BenchConfig
    photos: tuple[Path, ...]
    """The photos to upload; none for item queries."""

    @property
    def low_rate(self) -> int:
        """Requests per second at low load."""
        return self.bench.serve_photo_rate if self.photos else self.bench.serve_item_rate


@dataclass(frozen=True)
class Step:
    """The responses to a load of a constant rate."""

    rate: int
    seconds: float
    started: int
    answered: int
    dropped: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    generator_share: float
    """k6's share of all cores."""
    cpu_ms: Mapping[str, float]
    """CPU time of the service for each response, by role."""

    @property
    def answered_per_s(self) -> float:
        return self.answered / self.seconds

    @property
    def is_sustained(self) -> bool:
        """Whether the service answered the load."""
        return self.answered >= _MIN_SHARE * (self.started + self.dropped)


def cases(config: BenchRunConfig, folder: Path) -> Iterator[Case]:
    """Item queries, then photo queries, over one index. Raises: InputError without k6."""
    if shutil.which("k6") is None:
        raise InputError("bench serve: k6 is not on the PATH; install it: https://grafana.com/docs/k6")
    items = write_work(config, folder)
    photos = ServeWork(**{**vars(items), "photos": _write_photos(config.bench, folder)})
    both = {RAYSYS: run_raysys, BASELINE: run_bare}
    properties: dict[str, float] = {"num_vectors": config.bench.serve_vectors, "cores": os.cpu_count() or 1}
    contenders: dict[str, Callable[[], Measurement]] = {
        name: partial(run, items) for name, run in both.items()
    }
    yield Case("item queries", "queries/s", contenders, BASELINE, BASELINE, properties)
    contenders = {name: partial(run, photos) for name, run in both.items()}
    contenders[LIMIT] = partial(run_encoder_alone, photos, config.serve.max_batch_size)
    properties |= {"megapixels": config.bench.serve_megapixels}
    yield Case("photo queries", "queries/s", contenders, BASELINE, LIMIT, properties)


def conclusions(results: Sequence[CaseResult]) -> list[str]:
    """Throughput and latency beside the baseline's, and the CPU time of a query by process."""
    lines = []
    for result in results:
        ours, bare = result.contenders[RAYSYS], result.contenders[BASELINE]
        of_ours = {name: spread.median for name, spread in ours.metrics.items()}
        more_ms = of_ours["low p50"] - bare.metrics["low p50"].median
        of_limit = "" if result.limit == BASELINE else f" and {ours.vs_limit:.2f} of {result.limit}"
        spent = [f"{role} {of_ours[key]:.2f}" for role in _ROLES if (key := f"{role} cpu ms") in of_ours]
        lines += [
            f"{result.case}: {ours.vs_baseline:.2f} of the queries/s of {BASELINE}{of_limit}; at low load "
            f"{more_ms:+.1f} ms at p50",
            f"{result.case}: CPU time of a query at saturation: {', '.join(spent)} ms, with all of Ray "
            f"{of_ours['cpu ms']:.2f} ms; {bare.metrics['cpu ms'].median:.2f} ms in {BASELINE}; k6 took "
            f"{of_ours['k6 share']:.0%} of all cores",
        ]
    return lines


def run_raysys(work: ServeWork) -> Measurement:
    """`raysys serve` with the settings of the configuration."""
    return _measured(work, ("-m", "raysys", "serve", str(work.config_path)), "serve.port={port}")


def run_bare(work: ServeWork) -> Measurement:
    """`bare_service.py` over the same bundles."""
    return _measured(work, ("-m", "raysys.bench.bare_service", work.encoder_uri, work.index_uri), "{port}")


def run_encoder_alone(work: ServeWork, batch_size: int) -> Measurement:
    """Prepared photos in memory, in batches, with all cores."""
    encoder = _opened_encoder(work.encoder_uri)
    rng = np.random.default_rng(_SEED)
    pixels = rng.integers(0, 256, (batch_size, *encoder.image.shape)).astype(encoder.image.dtype)
    encoder.embed_pixels(pixels)
    num_photos, began = 0, time.monotonic()
    while time.monotonic() - began < work.bench.serve_seconds:
        encoder.embed_pixels(pixels)
        num_photos += batch_size
    return Measurement(num_photos / (time.monotonic() - began))


def _measured(work: ServeWork, command: tuple[str, ...], port_argument: str) -> Measurement:
    """Raise the load until the service is saturated; the rate is the most that it answered per second."""
    log = work.config_path.with_name("service.log")
    url, bench = _started_service(command, port_argument, log), work.bench
    _run_load(work, url, work.low_rate, bench.serve_warm_up_s)
    steps = []
    for number in range(bench.serve_max_steps):
        rate = round(work.low_rate * bench.serve_growth**number)
        steps.append(_run_load(work, url, rate, bench.serve_seconds))
        if not steps[-1].is_sustained:
            break
    return measurement_of(steps)


def measurement_of(steps: Sequence[Step]) -> Measurement:
    """Latencies at low load and at the highest sustained rate; CPU times at saturation."""
    low, most = steps[0], max(steps, key=lambda step: step.answered_per_s)
    sustained = [low, *itertools.takewhile(lambda step: step.is_sustained, steps[1:])]
    high = sustained[-1]
    metrics = {
        "low p50": low.p50_ms,
        "low p95": low.p95_ms,
        "low p99": low.p99_ms,
        "sustained/s": high.answered_per_s,
        "p50": high.p50_ms,
        "p95": high.p95_ms,
        "p99": high.p99_ms,
        "answered": sum(step.answered for step in sustained) / sum(step.started for step in sustained),
        "k6 share": most.generator_share,
        "cpu ms": sum(most.cpu_ms.values()),
    }
    metrics |= {f"{role} cpu ms": most.cpu_ms[role] for role in _ROLES if most.cpu_ms.get(role)}
    return Measurement(most.answered_per_s, metrics)


def _run_load(work: ServeWork, url: str, rate: int, seconds: float) -> Step:
    """Run k6 for a time at a constant rate. Raises: ClusterError if it fails."""
    environment = {
        "URL": url,
        "RATE": str(rate),
        "SECONDS": str(seconds),
        "CONNECTIONS": str(work.bench.serve_connections),
        "ITEMS": str(work.bench.serve_vectors),
        "PHOTOS": ":".join(map(str, work.photos)),
    }
    command = ["k6", "run", "--quiet", "--no-usage-report", "--address", ""]
    command += [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    service, generator, began = cpu_seconds(_ROLES), _children_cpu_s(), time.monotonic()
    finished = subprocess.run(
        [*command, str(Path(__file__).with_name("load.js"))], capture_output=True, text=True, check=False
    )
    if finished.returncode:
        raise ClusterError(f"k6: exit status {finished.returncode}: {finished.stderr.strip()[-300:]}")
    wall_s = time.monotonic() - began
    generator_share = (_children_cpu_s() - generator) / (wall_s * (os.cpu_count() or 1))
    fields: dict[str, Any] = json.loads(finished.stdout.strip().splitlines()[-1])
    spent = {role: s - service.get(role, 0.0) for role, s in cpu_seconds(_ROLES).items()}
    cpu_ms = {role: 1e3 * seconds / max(fields["answered"], 1) for role, seconds in spent.items()}
    return Step(rate, **fields, generator_share=generator_share, cpu_ms=cpu_ms)


def _children_cpu_s() -> float:
    """CPU seconds of all children that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@functools.cache
def _started_service(command: tuple[str, ...], port_argument: str, log: Path) -> str:
    """Start a service as a child that ends with this process; returns its address once it is ready.

    Raises: ClusterError with the last line of its output if it does not start.
    """
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command, port_argument.format(port=port)], stdout=output, stderr=output
        )
    Finalize(None, _stop, args=(process,), exitpriority=1)  # the exit handler of a process pool's worker
    url, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + _START_TIMEOUT_S
    while not _is_ready(url):
        if process.poll() is not None or time.monotonic() > deadline:
            last_line = log.read_text(encoding="utf-8").strip().rpartition("\n")[2][:300]
            raise ClusterError(f"{' '.join(command)}: no start within {_START_TIMEOUT_S:g} s: {last_line}")
        time.sleep(0.2)
    return url


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}readyz", timeout=10).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(_STOP_TIMEOUT_S)


@functools.cache
def _opened_encoder(uri: str) -> Any:
    return open_bundle(uri)


def write_work(config: BenchRunConfig, folder: Path) -> ServeWork:
    """Publish a model with random weights and an index of drawn vectors, as the stages name them."""
    changes = {"root": str(folder / "root"), "projection": {"dimensions": None}}
    path = folder / "serve.yaml"
    tree = {**config.model_dump(mode="json", exclude={"bench"}, exclude_unset=True), **changes}
    # The load repeats a few photos: each one is to be embedded.
    tree["serve"] = {**tree.get("serve", {}), "vector_cache_items": 0}
    path.write_text(json.dumps(tree), encoding="utf-8")
    served = load_config(str(path), [])
    encoder_uri, index_uri = str(specs.served_encoder(served)), specs.served_index(served)
    spec = ArtifactSpec(encoder_uri, EncoderBundleManifest, {}, {})
    encoder = publish_bundle(
        spec, partial(write_start, served), text=start.text_preprocessing(served.encoder)
    )
    index_data.write_work(
        folder, config.bench.serve_vectors, encoder.dimensions, 1, (), space_id=encoder.space_id
    )
    publish_index(
        ArtifactSpec(index_uri, IndexBundleManifest, {}, {}), str(folder / "embeddings"), served.index
    )
    return ServeWork(path, encoder_uri, index_uri, config.bench, ())


def _write_photos(bench: BenchConfig, folder: Path) -> tuple[Path, ...]:
    paths = []
    for number, item in enumerate(generate_items(_NUM_PHOTOS, _SEED)):
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(photo_like(item, bench.serve_megapixels, _SEED + number))
    return tuple(paths)
