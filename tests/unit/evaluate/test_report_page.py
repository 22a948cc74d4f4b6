"""The report as an HTML page."""

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

import raysys
from raysys.encoder.interpolation import Point, choose_alpha
from raysys.evaluate.report import NEXT_COMMANDS, SYSTEM_REASONS, CataloguePhoto, NeighbourPhoto, report_html
from raysys.evaluate.significance import Interval
from tests.unit.evaluate.reports import EMPTY, JPEG, against_production, report, system


@pytest.fixture(scope="module")
def page() -> str:
    return report_html(report())


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


def test_index_has_a_table_of_its_own_beside_exact_search(page: str) -> None:
    assert "Served index: what does the search lose?" in page
    assert "(hnsw, ef_search 64)" in page
    assert "neighbour. 3 query items are not in the index. <b>P@5</b>" in " ".join(page.split())
    assert "<b>-3.0%</b>" in page
    assert "Served index" not in report_html(EMPTY)


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
