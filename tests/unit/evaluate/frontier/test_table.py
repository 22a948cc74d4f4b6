"""The frontier as text, JSON and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from raysys.evaluate.frontier.measure import LeftOut, Row
from raysys.evaluate.frontier.plot import frontier_plot
from raysys.evaluate.frontier.table import Frontier, frontier_json, frontier_lines, frontier_markdown
from raysys.evaluate.significance import Interval
from raysys.index.encodings import Encoding
from raysys.index.measure import Latency


def row(
    name: str, dimensions: int, num_bytes: int, recall: float, ndcg: float, lost: float | None, p50: float
) -> Row:
    return Row(
        dimensions=dimensions,
        encoding=Encoding(name, name.upper()),
        bytes_per_vector=num_bytes,
        latency=Latency(p50, 2 * p50),
        metrics={"recall@10": Interval(recall, recall, recall), "ndcg@5": Interval(ndcg, ndcg, ndcg)},
        changes={} if lost is None else {"ndcg@5": Interval(0 - lost, -lost - 0.01, -lost + 0.01)},
    )


ROWS = [
    row("fp32", 128, 512, 1.0, 0.7, None, 0.3),
    row("sq8", 128, 128, 0.99, 0.7, 0.0, 0.4),
    row("sq8", 32, 32, 0.8, 0.695, 0.007, 0.1),
    row("pq", 32, 8, 0.6, 0.65, 0.07, 0.2),
]


def frontier(rows: list[Row] | None = None, absent: Mapping[str, str] | None = None) -> Frontier:
    return Frontier(
        name="shop",
        rows=rows or ROWS,
        left_out=[LeftOut(32, "pq", "too few")],
        absent=absent or {"p@k": "evaluate.attribute_precision is null"},
        simulated=True,
        num_items=1_000_000,
        num_searched=100_000,
        num_queries=1000,
        provenance={"seed": "13"},
    )


def test_lines_have_an_aligned_table_with_marks() -> None:
    header, first, second, third, fourth, *notes = frontier_lines(frontier())
    assert header.split() == "dimensions encoding bytes nDCG@5 change recall@10 p50 ms p99 ms".split()  # noqa: SIM905
    # 512 bytes are dominated by 128 on the log and not by recall; 0.1 ms are beaten by nobody.
    assert first.split() == ["128", "fp32", "512", "0.700", "+", "-", "1.000", "*+", "0.300", "0.600"]
    assert second.split()[3:5] == ["0.700", "*"]
    assert third.split()[:5] == ["32", "sq8", "32", "0.695", "*+"]
    assert fourth.split()[:9] == ["32", "pq", "8", "0.650", "*", "-7.0%", "[-8.0%,", "-6.0%]", "0.600"]
    assert " frontier  no P@k: evaluate.attribute_precision is null" in notes
    assert " frontier  left out: 32 dimensions in pq: too few" in notes
    assert any("among a random 100,000 of 1,000,000 items" in note for note in notes)
    assert any("SIMULATED LOG" in note for note in notes)


def test_result_is_the_shortest_vector_that_loses_little_as_measured_and_with_certainty() -> None:
    results = [line for line in frontier_lines(frontier()) if line.startswith("   result")]
    assert results == [
        "   result  nDCG@5: at most 1% is lost with 32 of 512 bytes, 32 dimensions in sq8: "
        "-0.7% [-1.7%, +0.3%] (as measured)",
        "   result  nDCG@5: at most 1% is lost with 128 of 512 bytes, 128 dimensions in sq8: "
        "+0.0% [-1.0%, +1.0%] (by the low end of the interval)",
    ]


def test_result_says_that_every_other_row_loses_more() -> None:
    results = [line for line in frontier_lines(frontier([ROWS[0], ROWS[3]])) if "result" in line]
    assert [line.split("is lost ")[1] for line in results] == [
        "in no other row (as measured)",
        "in no other row (by the low end of the interval)",
    ]


def test_json_has_every_row_with_its_metrics_and_pareto_marks() -> None:
    content = json.loads(json.dumps(frontier_json(frontier())))
    assert (content["items"], content["searched"], content["queries"]) == (1_000_000, 100_000, 1000)
    assert content["rows"][2] == {
        "dimensions": 32,
        "encoding": "sq8",
        "factory": "SQ8",
        "bytes_per_vector": 32,
        "p50_ms": 0.1,
        "p99_ms": 0.2,
        "metrics": {
            "recall@10": {"value": 0.8, "low": 0.8, "high": 0.8},
            "ndcg@5": {"value": 0.695, "low": 0.695, "high": 0.695},
        },
        "changes": {"ndcg@5": {"value": -0.007, "low": pytest.approx(-0.017), "high": pytest.approx(0.003)}},
        "pareto": {"bytes": ["ndcg@5", "recall@10"], "latency": ["ndcg@5", "recall@10"]},
    }
    assert content["left_out"] == [{"dimensions": 32, "encoding": "pq", "reason": "too few"}]


def test_markdown_shows_the_plot_and_a_row_for_each() -> None:
    lines = frontier_markdown(frontier(), "frontier.png").splitlines()
    assert "![nDCG@5, recall@10 against bytes and latency](frontier.png)" in lines
    table = [line for line in lines if line.startswith("|")]
    assert len(table) == 2 + len(ROWS)
    assert {line.count("|") for line in table} == {len(table[0].split("|")) - 1}


def test_plot_is_a_png_with_panels_of_one_row_only_as_well() -> None:
    for rows in (ROWS, ROWS[:1]):
        assert frontier_plot(frontier(rows)).startswith(b"\x89PNG")
