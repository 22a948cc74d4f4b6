"""The three forms of a report say the same, honestly, and stand alone."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from raysys.encoder.interpolation import Point, choose_alpha
from raysys.evaluate.report import (
    Neighbours,
    ReportData,
    SystemResult,
    report_html,
    report_json,
    report_lines,
)
from raysys.evaluate.significance import Interval

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"
BARE = ReportData(
    "bare", simulated=False, rungs=[], shelf=None, loss_curve=[], grid=[], interpolation=None, facts={}
)

INTERPOLATION = choose_alpha(
    [
        Point(alpha=0.0, metrics={"r@5": 0.3, "score": 0.36}, retention=0.5),
        Point(alpha=0.5, metrics={"r@5": 0.4, "score": 0.44}, retention=0.48),
        Point(alpha=1.0, metrics={"r@5": 0.5, "score": 0.43}, retention=0.41),
    ],
    score="ndcg@5",
    max_retention_drop=0.05,
)


def interval(value: float) -> Interval:
    return Interval(value, value - 0.01, value + 0.02)


def rung(name: str, ndcg: float, lift: Interval | None = None) -> SystemResult:
    metrics = {"ndcg@5": interval(ndcg), "hit@1": interval(0.3), "hit@3": interval(0.6)}
    return SystemResult(name, available=True, reason=None, metrics=metrics, lift=lift)


def report() -> ReportData:
    return ReportData(
        name="demo",
        simulated=True,
        rungs=[
            rung("random", 0.35),
            SystemResult("mobilenet_v2", available=False, reason="no <network>", metrics={}, lift=None),
            rung("zero_shot", 0.5),
            rung("fine_tuned", 0.6, Interval(0.2, 0.15, 0.25)),
            SystemResult("wise_ft", available=False, reason="train.method is full", metrics={}, lift=None),
        ],
        shelf={"zero_shot": {"p@5": interval(0.2)}, "fine_tuned": {"p@5": interval(0.3)}, "chance": 0.05},
        loss_curve=[{"step": 0, "loss": 4.0}, {"step": 10, "loss": 2.0, "val_r@1": 0.25, "val_r@10": 0.5}],
        grid=[
            Neighbours(
                "<b>red bag</b>", PNG, before=[(JPEG, "blue bag", 0.5)], after=[(JPEG, "red bag", 0.9)]
            )
        ],
        interpolation=INTERPOLATION,
        facts={"inputs": "encoders/demo", "seed": "13", "command": "raysys evaluate demo.yaml"},
    )


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(report())


def test_json_keeps_the_contract() -> None:
    found = report_json(report())
    assert found["simulated"] is True
    assert (found["inputs"], found["seed"], found["command"]) == (
        "encoders/demo",
        "13",
        "raysys evaluate demo.yaml",
    )
    assert found["rungs"][1] == {
        "name": "mobilenet_v2", "available": False, "reason": "no <network>", "metrics": {}
    }  # fmt: skip
    assert found["rungs"][3]["metrics"]["ndcg@5"] == {"value": 0.6, "low": 0.59, "high": 0.62}
    assert found["rungs"][3]["lift_vs_zero_shot"] == {"value": 0.2, "low": 0.15, "high": 0.25}
    assert found["shelf"]["chance"] == 0.05
    assert found["shelf"]["fine_tuned"]["p@5"]["value"] == 0.3
    assert "shelf" not in report_json(replace(report(), shelf=None))


def test_json_holds_the_whole_curve_and_what_was_chosen() -> None:
    found = json.loads(json.dumps(report_json(report())))["interpolation"]
    assert [point["a"] for point in found["points"]] == [0.0, 0.5, 1.0]
    assert [point["guard"] for point in found["points"]] == [0.5, 0.48, 0.41]
    assert (found["chosen"], found["score"], found["floor"]) == (0.5, "ndcg@5", 0.475)
    assert "interpolation" not in report_json(BARE)


def test_the_page_says_how_far_from_the_start_it_went(page: str) -> None:
    assert "How far to go from the start" in page
    assert (
        "Chosen: a = 0.5. nDCG@5 is 0.440 there, 0.360 at the start and 0.430 at the end. The guard is 0.480 "
        "there, 0.500 at the start and 0.410 at the end; 0.475 was the least allowed." in page
    )
    assert "least allowed 0.475" in page


def test_the_verdict_is_on_what_was_delivered() -> None:
    worse, better = (
        rung("fine_tuned", 0.4, Interval(-0.2, -0.3, -0.1)),
        rung("wise_ft", 0.6, Interval(0.2, 0.1, 0.3)),
    )
    assert "<h1>Fine-tuning ordered the shelf better" in report_html(replace(BARE, rungs=[worse, better]))


def test_without_validation_pairs_the_guard_alone_is_drawn() -> None:
    points = [Point(alpha=a, metrics={}, retention=0.5) for a in (0.0, 1.0)]
    page = report_html(replace(BARE, interpolation=choose_alpha(points, score="r@5", max_retention_drop=0.0)))
    assert "Chosen: a = 1. The guard is 0.500 there" in page
    assert page.count("<svg") == 1


def test_json_has_no_number_that_json_lacks() -> None:
    odd = replace(report(), rungs=[rung("fine_tuned", math.nan, Interval(math.inf, -math.inf, math.nan))])
    found = json.loads(json.dumps(report_json(odd), allow_nan=False))
    assert found["rungs"][0]["metrics"]["ndcg@5"] == {"value": None, "low": None, "high": None}
    assert found["rungs"][0]["lift_vs_zero_shot"] == {"value": None, "low": None, "high": None}


def test_lines_are_an_aligned_table_that_names_what_is_missing() -> None:
    lines = report_lines(report())
    assert lines[0].split() == ["rung", "nDCG@5", "hit@1", "hit@3", "nDCG@5", "against", "zero_shot"]
    assert lines[2] == "mobilenet_v2  not available: no <network>"
    assert lines[4] == (
        "fine_tuned    0.600 [0.590, 0.620]  0.300 [0.290, 0.320]  0.600 [0.590, 0.620]  +20.0% [+15.0%, +25.0%]"
    )
    assert len({line.index("0.300") for line in lines if "0.300" in line}) == 1
    assert lines[6] == "SIMULATED LOG: taps were drawn from attributes; no person made them."


def test_lines_of_a_recorded_log_are_not_marked() -> None:
    assert not any("SIMULATED" in line for line in report_lines(replace(report(), simulated=False)))


def test_the_page_stands_alone(page: str) -> None:
    assert "<script" not in page
    assert "@import" not in page
    sources = re.findall(r'src="([^"]{0,22})', page)
    assert sources == ["data:image/png;base64,"[:22]] + ["data:image/jpeg;base64,"[:22]] * 2
    links = set(re.findall(r'href="(https?:[^"]+)"', page))
    assert links == {
        "https://arxiv.org/abs/2109.01903",
        "https://arxiv.org/abs/2510.13359",
    }  # read by people, loaded by nobody


def test_the_page_is_well_formed(page: str) -> None:
    class Balance(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in {"meta", "img", "link"}:
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balance()
    parser.feed(page)
    assert parser.open == []


def test_the_page_marks_a_simulated_log_and_whose_figures_are_whose(page: str) -> None:
    assert "SIMULATED LOG." in page
    assert (
        "<h1>On a simulated log, fine-tuning ordered the shelf better: nDCG@5 +20.0% (+15.0% to +25.0%).</h1>"
        in page
    )
    assert "These are\ntheirs, not ours." in page
    assert "<td>0.662 (+9.1%)</td>" in page


@pytest.mark.parametrize(
    ("lift", "verdict"),
    [
        (Interval(0.2, 0.1, 0.3), "Fine-tuning ordered the shelf better: nDCG@5 +20.0% (+10.0% to +30.0%)."),
        (
            Interval(-0.2, -0.3, -0.1),
            "Fine-tuning ordered the shelf worse: nDCG@5 -20.0% (-30.0% to -10.0%).",
        ),
        (
            Interval(0.01, -0.02, 0.04),
            "Fine-tuning made no difference that this log can show: nDCG@5 +1.0% (-2.0% to +4.0%).",
        ),
        (None, "Fine-tuning could not be compared with the encoder it started from."),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(lift: Interval | None, verdict: str) -> None:
    tuned = rung("fine_tuned", 0.6, lift)
    page = report_html(replace(BARE, rungs=[replace(tuned, metrics={})]))
    assert f"<h1>{verdict}</h1>" in page
    assert "SIMULATED" not in page


def test_text_from_the_catalogue_cannot_become_markup(page: str) -> None:
    assert "<b>red bag</b>" not in page
    assert "&lt;b&gt;red bag&lt;/b&gt;" in page
    assert "not available: no &lt;network&gt;" in page


def test_plots_take_their_colours_from_the_page(page: str) -> None:
    assert page.count("<svg") == 4
    assert "a photo finds its own title first" in page
    assert "var(--accent)" in page
    assert not re.search(r"#0([1-6])0\1\b", page)  # no placeholder is left


def test_the_same_data_makes_the_same_page(page: str) -> None:
    assert report_html(report()) == page


def test_a_bare_report_is_still_a_page() -> None:
    page = report_html(BARE)
    assert "<svg" not in page
    assert "How training went" not in page
    assert "Neighbours before and after" not in page
    assert report_lines(BARE) == ["rung  nDCG@5  nDCG@5 against zero_shot"]
