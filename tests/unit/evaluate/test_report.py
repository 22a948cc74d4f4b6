"""The report as JSON, as an HTML page and as lines for a terminal."""

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import raysys
from raysys.config.schema import SYSTEMS
from raysys.encoder.interpolation import Point, choose_alpha
from raysys.evaluate.index_comparison import IndexComparison
from raysys.evaluate.report import (
    NEXT_COMMANDS,
    SYSTEM_DESCRIPTIONS,
    SYSTEM_REASONS,
    CataloguePhoto,
    NeighbourPhoto,
    QueryNeighbours,
    ReportData,
    report_html,
    report_json,
    report_lines,
)
from raysys.evaluate.reranking import SystemResult
from raysys.evaluate.significance import Interval

PNG = b"\x89PNG\r\n\x1a\n"
JPEG = b"\xff\xd8\xff\xe0"
EMPTY = ReportData(
    name="empty",
    simulated=False,
    systems=[],
    attribute_precision=None,
    loss_curve=[],
    neighbours=[],
    interpolation=None,
    provenance={},
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


def system(name: str, ndcg: float, lift: Interval | None = None) -> SystemResult:
    metrics = {"ndcg@5": interval(ndcg), "hit@1": interval(0.3), "hit@3": interval(0.6)}
    return SystemResult(name, available=True, reason=None, metrics=metrics, lift=lift)


def unavailable(name: str, reason: str) -> SystemResult:
    return SystemResult(name, available=False, reason=reason, metrics={}, lift=None)


def report() -> ReportData:
    return ReportData(
        name="demo",
        simulated=True,
        systems=[
            system("random", 0.35),
            unavailable("mobilenet_v2", "no <network>"),
            system("zero_shot", 0.5),
            system("fine_tuned", 0.6, Interval(0.2, 0.15, 0.25)),
            unavailable("wise_ft", "train.method is full"),
        ],
        attribute_precision={
            "zero_shot": {"p@5": interval(0.2)},
            "fine_tuned": {"p@5": interval(0.3)},
            "chance": 0.05,
        },
        attribute_precision_lifts={"fine_tuned": {"p@5": Interval(0.5, 0.4, 0.6)}},
        index=IndexComparison(
            kind="hnsw",
            settings={"ef_search": 64},
            num_items=5000,
            num_queries=200,
            num_unknown=3,
            recall={"recall@1": Interval(0.99, 0.98, 1.0), "recall@10": Interval(0.95, 0.94, 0.96)},
            precision_name="p@5",
            precision={"exact": interval(0.33), "index": interval(0.32)},
            precision_lift=Interval(-0.03, -0.04, -0.02),
        ),
        loss_curve=[{"step": 0, "loss": 4.0}, {"step": 10, "loss": 2.0, "val_r@1": 0.25, "val_r@10": 0.5}],
        neighbours=[
            QueryNeighbours(
                title="<b>red bag</b>",
                photo=PNG,
                start=[NeighbourPhoto(JPEG, "blue bag", 0.5)],
                delivered=[NeighbourPhoto(JPEG, "red bag", 0.9)],
            )
        ],
        interpolation=INTERPOLATION,
        provenance={"inputs": "encoders/demo", "seed": "13", "command": "raysys evaluate demo.yaml"},
    )


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(report())


def test_json_has_the_documented_keys() -> None:
    content = report_json(report())
    assert content["simulated"] is True
    assert (content["inputs"], content["seed"], content["command"]) == (
        "encoders/demo",
        "13",
        "raysys evaluate demo.yaml",
    )
    assert content["facts"] == report().provenance
    assert content["rungs"][1] == {
        "name": "mobilenet_v2", "available": False, "reason": "no <network>", "metrics": {}
    }  # fmt: skip
    assert content["rungs"][3]["metrics"]["ndcg@5"] == {"value": 0.6, "low": 0.59, "high": 0.62}
    assert content["rungs"][3]["lift_vs_zero_shot"] == {"value": 0.2, "low": 0.15, "high": 0.25}
    assert content["shelf"]["chance"] == 0.05
    assert content["shelf"]["fine_tuned"]["p@5"]["value"] == 0.3
    assert "shelf" not in report_json(replace(report(), attribute_precision=None))


def test_json_has_all_interpolation_points_and_the_chosen_one() -> None:
    content = json.loads(json.dumps(report_json(report())))["interpolation"]
    assert [point["a"] for point in content["points"]] == [0.0, 0.5, 1.0]
    assert [point["guard"] for point in content["points"]] == [0.5, 0.48, 0.41]
    assert (content["chosen"], content["score"], content["floor"]) == (0.5, "ndcg@5", 0.475)
    assert "interpolation" not in report_json(EMPTY)


def test_page_describes_the_chosen_interpolation_point(page: str) -> None:
    assert "Interpolation between start and fine-tuned weights" in page
    assert (
        "Chosen: alpha = 0.5. nDCG@5: 0.440 (start 0.360, fine-tuned 0.430). "
        "Retention check: 0.480 (start 0.500, fine-tuned 0.410, minimum 0.475)." in page
    )
    assert "minimum 0.475</text>" in page


def test_headline_is_about_the_delivered_encoder() -> None:
    worse, better = (
        system("fine_tuned", 0.4, Interval(-0.2, -0.3, -0.1)),
        system("wise_ft", 0.6, Interval(0.2, 0.1, 0.3)),
    )
    page = report_html(replace(EMPTY, systems=[worse, better]))
    assert "<h1>Fine-tuning improved the order of the shelf" in page


def test_interpolation_without_validation_pairs_shows_the_retention_check_alone() -> None:
    points = [Point(alpha=alpha, metrics={}, retention=0.5) for alpha in (0.0, 1.0)]
    page = report_html(
        replace(EMPTY, interpolation=choose_alpha(points, score="r@5", max_retention_drop=0.0))
    )
    assert "Chosen: alpha = 1. Retention check: 0.500" in page
    assert page.count("<svg") == 1


def test_json_has_null_for_nan_and_infinity() -> None:
    odd = replace(report(), systems=[system("fine_tuned", math.nan, Interval(math.inf, -math.inf, math.nan))])
    content = json.loads(json.dumps(report_json(odd), allow_nan=False))
    assert content["rungs"][0]["metrics"]["ndcg@5"] == {"value": None, "low": None, "high": None}
    assert content["rungs"][0]["lift_vs_zero_shot"] == {"value": None, "low": None, "high": None}


def test_lines_are_an_aligned_table_with_reasons_for_unavailable_systems() -> None:
    lines = report_lines(report())
    assert lines[0].split() == ["system", "nDCG@5", "hit@1", "hit@3", "nDCG@5", "against", "zero_shot"]
    assert lines[2] == "mobilenet_v2  not available: no <network>"
    assert lines[4] == (
        "fine_tuned    0.600 [0.590, 0.620]  0.300 [0.290, 0.320]  0.600 [0.590, 0.620]  +20.0% [+15.0%, +25.0%]"
    )
    assert len({line.index("0.300") for line in lines[:6] if "0.300" in line}) == 1
    assert lines[-1] == "SIMULATED LOG: taps were generated from item attributes, not recorded from people."


def test_lines_have_a_reason_for_every_available_system_and_the_result() -> None:
    lines = report_lines(against_production())
    assert [line.split()[0] for line in lines[4:8]] == ["system", "production", "zero_shot", "fine_tuned"]
    assert lines[5] == ("production  Vectors of yours: the fine-tuned encoder has to beat what you have.")
    assert lines[-2].startswith(
        "   result  On a simulated log, the fine-tuned encoder orders the shelf better"
    )
    assert not [
        line for line in report_lines(report()) if line.startswith("wise_ft ") and "delivered" in line
    ]


def test_lines_of_a_recorded_log_have_no_simulation_warning() -> None:
    assert not any("SIMULATED" in line for line in report_lines(replace(report(), simulated=False)))


def test_page_loads_nothing_from_elsewhere(page: str) -> None:
    assert "<script" not in page
    assert "@import" not in page
    sources = re.findall(r'src="([^"]{0,22})', page)
    assert sources == ["data:image/png;base64,"[:22]] + ["data:image/jpeg;base64,"[:22]] * 2
    links = set(re.findall(r'href="(https?:[^"]+)"', page))
    assert links == {"https://arxiv.org/abs/2109.01903", "https://arxiv.org/abs/2510.13359"}  # text links


def test_page_is_well_formed(page: str) -> None:
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


def test_page_marks_a_simulated_log_and_the_source_of_published_results(page: str) -> None:
    assert "SIMULATED LOG." in page
    assert (
        "<h1>On a simulated log, fine-tuning improved the order of the shelf: "
        "nDCG@5 +20.0% (+15.0% to +25.0%).</h1>" in page
    )
    assert "Measured by Mercari on their own log" in page
    assert "<td>0.662 (+9.1%)</td>" in page


@pytest.mark.parametrize(
    ("lift", "headline"),
    [
        (
            Interval(0.2, 0.1, 0.3),
            "Fine-tuning improved the order of the shelf: nDCG@5 +20.0% (+10.0% to +30.0%).",
        ),
        (
            Interval(-0.2, -0.3, -0.1),
            "Fine-tuning worsened the order of the shelf: nDCG@5 -20.0% (-30.0% to -10.0%).",
        ),
        (
            Interval(0.01, -0.02, 0.04),
            "Fine-tuning made no measurable difference on this log: nDCG@5 +1.0% (-2.0% to +4.0%).",
        ),
        (None, "Fine-tuning could not be compared with the start encoder."),
    ],
)
def test_headline_follows_the_interval_of_the_lift(lift: Interval | None, headline: str) -> None:
    fine_tuned = system("fine_tuned", 0.6, lift)
    page = report_html(replace(EMPTY, systems=[replace(fine_tuned, metrics={})]))
    assert f"<h1>{headline}</h1>" in page
    assert "SIMULATED" not in page


def test_text_of_the_catalogue_is_escaped(page: str) -> None:
    assert "<b>red bag</b>" not in page
    assert "&lt;b&gt;red bag&lt;/b&gt;" in page
    assert "not available: no &lt;network&gt;" in page


def test_plots_use_the_colour_variables_of_the_page(page: str) -> None:
    assert page.count("<svg") == 4
    assert "R@1 on validation pairs, from photo to title" in page
    assert "var(--accent)" in page
    assert not re.search(r"#0([1-6])0\1\b", page)  # no placeholder colour remains


def test_same_data_gives_the_same_page(page: str) -> None:
    assert report_html(report()) == page


def test_empty_report_is_a_page_without_plots() -> None:
    page = report_html(EMPTY)
    assert "<svg" not in page
    assert "<h2>Training</h2>" not in page
    assert "The shelf before and after" not in page
    assert report_lines(EMPTY) == ["system  nDCG@5  nDCG@5 against zero_shot"]


def test_warnings_are_in_every_form_of_the_report() -> None:
    data = replace(report(), warnings=["20 impressions of <9> query items."])
    assert report_json(data)["warnings"] == ["20 impressions of <9> query items."]
    assert report_lines(data)[-1] == "WARNING: 20 impressions of <9> query items."
    assert "<b>WARNING.</b> 20 impressions of &lt;9&gt; query items.</p>" in report_html(data)
    assert "warnings" not in report_json(report())


def against_production() -> ReportData:
    """A report with a baseline of the user, to which the others are compared."""
    production = system("production", 0.55)
    zero_shot, fine_tuned = (
        system("zero_shot", 0.5, Interval(-0.09, -0.1, -0.08)),
        system("fine_tuned", 0.6, Interval(0.09, 0.05, 0.13)),
    )
    return replace(
        report(),
        systems=[production, zero_shot, fine_tuned],
        compare_to="production",
        attribute_precision={"production": {"p@5": interval(0.25)}, "fine_tuned": {"p@5": interval(0.3)}},
        attribute_precision_lifts={"fine_tuned": {"p@5": Interval(0.2, 0.1, 0.3)}},
    )


def test_lifts_against_a_baseline_have_its_name_in_json() -> None:
    content = report_json(against_production())
    assert content["compare_to"] == "production"
    assert content["rungs"][0]["name"] == "production"
    assert content["rungs"][2]["lift_vs_production"] == {"value": 0.09, "low": 0.05, "high": 0.13}
    assert not [rung for rung in content["rungs"] if "lift_vs_zero_shot" in rung]
    assert content["shelf"]["production"]["p@5"]["value"] == 0.25
    assert content["shelf_lifts"] == {"fine_tuned": {"p@5": {"value": 0.2, "low": 0.1, "high": 0.3}}}


def test_page_compares_with_the_baseline_in_every_table() -> None:
    page = report_html(against_production())
    assert (
        "<h1>On a simulated log, the fine-tuned encoder orders the shelf better than production: "
        "nDCG@5 +9.0% (+5.0% to +13.0%).</h1>" in page
    )
    assert page.count("<td><code>production</code>") == 2
    assert "<th>nDCG@5 against production</th>" in page
    assert "<th>P@5 against production</th>" in page
    assert "<b>+20.0%</b><small>+10.0% to +30.0%</small>" in page
    assert "Dashed: production." in page
    assert "against zero_shot" not in page


@pytest.mark.parametrize(
    ("lift", "headline"),
    [
        (Interval(-0.2, -0.3, -0.1), "The fine-tuned encoder orders the shelf worse than production: nDCG@5"),
        (
            Interval(0.0, -0.1, 0.1),
            "The fine-tuned encoder does not differ measurably from production: nDCG@5",
        ),
        (None, "The fine-tuned encoder could not be compared with production."),
    ],
)
def test_headline_against_a_baseline(lift: Interval | None, headline: str) -> None:
    data = replace(EMPTY, compare_to="production", systems=[system("fine_tuned", 0.6, lift)])
    assert f"<h1>{headline}" in report_html(data)


def test_lines_have_a_table_for_attribute_precision_and_a_line_for_the_index() -> None:
    lines = report_lines(against_production())
    assert lines[0].endswith("nDCG@5 against production")
    assert lines[8].split() == ["system", "P@5", "P@5", "against", "production"]
    assert lines[10] == "fine_tuned  0.300 [0.290, 0.320]  +20.0% [+10.0%, +30.0%]"
    assert lines[11] == (
        "    index  hnsw, ef_search 64 against exact search, 200 queries: recall@1 0.990 [0.980, 1.000], "
        "recall@10 0.950 [0.940, 0.960], P@5 by exact 0.330 [0.320, 0.350], P@5 by index 0.320 [0.310, 0.340]"
    )


def test_index_has_a_table_of_its_own_beside_exact_search(page: str) -> None:
    content = report_json(report())["index"]
    assert (content["kind"], content["settings"]) == ("hnsw", {"ef_search": 64})
    assert (content["queries"], content["unknown_queries"]) == (200, 3)
    assert content["recall"]["recall@10"] == {"value": 0.95, "low": 0.94, "high": 0.96}
    assert (content["p@5"]["exact"]["value"], content["p@5"]["index"]["value"]) == (0.33, 0.32)
    assert content["lift_vs_exact"]["value"] == -0.03
    assert "Served index: what does the search lose?" in page
    assert "(hnsw, ef_search 64)" in page
    assert "neighbour. 3 query items are not in the index. <b>P@5</b>" in " ".join(page.split())
    assert "<b>-3.0%</b>" in page
    assert "index" not in report_json(EMPTY)
    assert "Served index" not in report_html(EMPTY)


def test_every_built_in_system_has_a_description() -> None:
    assert tuple(SYSTEM_DESCRIPTIONS) == tuple(SYSTEM_REASONS) == SYSTEMS


def test_every_row_of_the_page_has_its_reason(page: str) -> None:
    rows = re.findall(r"<tr class=.*?</tr>", page, flags=re.S)[:5]
    reasons = [re.findall(r'<span class="reason">(.+?)</span>', row) for row in rows]
    names = ["random", "mobilenet_v2", "zero_shot", "fine_tuned", "wise_ft"]
    assert reasons == [[SYSTEM_REASONS[name]] for name in names]


def test_page_labels_the_query_with_the_largest_gain_and_the_random_ones() -> None:
    query = report().neighbours[0]
    data = replace(
        report(),
        neighbours=[replace(query, has_largest_gain=True), query, query],
        relevance_rule="was tapped for this query in the log",
    )
    page = " ".join(report_html(data).split())
    labels = re.findall(r'<small class="chosen[^"]*">([^<]+)</small>', page)
    assert labels == ["largest gain", "chosen at random", "chosen at random"]
    assert "The other queries are chosen <b>at random</b>" in page
    assert "</b> was tapped for this query in the log." in page
    only_random = " ".join(report_html(replace(data, neighbours=[query])).split())
    assert "The query is chosen <b>at random</b>" in only_random
    assert "largest gain" not in only_random


def test_relevant_items_are_marked_and_counted_on_a_simulated_log() -> None:
    query = report().neighbours[0]
    items = [NeighbourPhoto(JPEG, "red bag", 0.9, True), NeighbourPhoto(JPEG, "hat", 0.8, False)]
    data = replace(report(), neighbours=[replace(query, delivered=items)])
    page = report_html(data)
    assert page.count('<figure class="relevant">') == 1
    assert re.findall(r"<small>(\d of \d) ✓</small>", page) == ["0 of 1", "1 of 2"]
    assert "of 2 ✓" not in report_html(replace(data, simulated=False))  # of a recorded log not all is known


def test_shelf_follows_the_headline_and_the_photos_of_the_catalogue() -> None:
    photos = [CataloguePhoto(JPEG, "<i>hat</i>")] * 48
    page = report_html(replace(report(), catalogue_photos=photos, num_items=1728))
    places = [page.index(text) for text in ('class="sheet"', "<h1>", "The shelf before and after", "<table")]
    assert places == sorted(places)
    assert "48 of the 1,728 items of this evaluation, chosen at random" in page
    assert page.count('alt="&lt;i&gt;hat&lt;/i&gt;"') == 48
    assert 'class="sheet"' not in report_html(report())


def test_report_of_the_drawn_catalogue_ends_with_the_commands_for_another() -> None:
    page = report_html(replace(report(), is_drawn=True))
    assert all(command in page for command in NEXT_COMMANDS)
    assert "Next: your own catalogue" not in report_html(report())


def test_commands_for_another_catalogue_are_those_of_the_front_page() -> None:
    front_page = (Path(raysys.__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    assert "".join(f"    {command}\n" for command in NEXT_COMMANDS) in front_page
