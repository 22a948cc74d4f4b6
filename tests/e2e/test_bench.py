"""`raysys bench` runs to its end and tells of every contender; contenders take turns."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from raysys.bench import loss, pack, scaling, stream, train
from raysys.bench.measure import Case, Trial, measure
from tests.e2e.small import run_raysys


# Two clusters and five contenders each: a minute that `make test` does not have.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "contenders"),
    [
        ("stream", {stream.OURS, stream.PEER, stream.RAY, stream.LIMIT}),
        ("pack", {pack.OURS, pack.PEER, pack.LIMIT}),
        ("loss", {loss.RING, loss.GATHER, loss.AUTOGRAD, loss.LIMIT}),
        ("train", {train.OURS, train.OURS_STREAM, train.TRANSFORMERS, train.LIMIT}),
        ("scaling", {scaling.TOGETHER, scaling.ALONE}),
    ],
)
def test_a_quick_bench_tells_of_every_contender(what: str, contenders: set[str], tmp_path: Path) -> None:
    finished = run_raysys("bench", what, "--quick", "--json", folder=tmp_path)
    assert finished.status == 0, finished.stderr
    report = json.loads(finished.stdout)
    assert report["bench"] == what
    assert report["facts"]["command"] == f"raysys bench {what} --quick --json"
    assert {"date", "commit", "hardware", "versions"} <= set(report["facts"])
    assert report["conclusions"]
    for finding in report["findings"]:
        assert contenders <= set(finding["contenders"])
        for standing in finding["contenders"].values():
            assert_consistent(standing, finding)
    if what in ("stream", "pack"):
        ours = report["findings"][-1]["contenders"][stream.OURS if what == "stream" else pack.OURS]
        assert 0 < ours["object_store_bytes"] < ours["peak_memory_bytes"]


def assert_consistent(standing: dict[str, Any], finding: dict[str, Any]) -> None:
    """Medians lie between their ends, ratios are quotients, and nothing is measured in no memory."""
    for spread in (standing["rate"], *standing["figures"].values()):
        assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    for ratio, other in (("to_peer", finding["peer"]), ("to_limit", finding["limit"])):
        theirs = finding["contenders"][other]["rate"]["median"]
        assert standing[ratio] == pytest.approx(standing["rate"]["median"] / theirs)
    assert standing["peak_memory_bytes"] > 1e6


def note_turn(log: Path, name: str) -> Trial:
    """A contender that writes down its turn and its process; its rate is 2, 4, 6, .. by turn."""
    with log.open("a") as stream:
        stream.write(f"{name} {os.getpid()}\n")
    return Trial(2.0 * sum(line.startswith(name) for line in log.read_text().splitlines()), {"turns": 1.0})


def test_contenders_take_turns_in_processes_of_their_own(tmp_path: Path) -> None:
    log = tmp_path / "turns"
    case = Case("case", "turns", {name: partial(note_turn, log, name) for name in "AB"}, "A", "B")
    finding = measure(case, rounds=3)
    turns = [line.split() for line in log.read_text().splitlines()]
    assert [name for name, _ in turns] == ["A", "B", "A", "B", "A", "B"]
    pids = {name: {pid for other, pid in turns if other == name} for name in "AB"}
    assert len(pids["A"]) == len(pids["B"]) == 1
    assert len(pids["A"] | pids["B"] | {str(os.getpid())}) == 3
    rate = finding.contenders["A"].rate
    assert (rate.median, rate.min, rate.max) == (4.0, 2.0, 6.0)
    assert (finding.contenders["A"].to_peer, finding.contenders["A"].to_limit) == (1.0, 1.0)
