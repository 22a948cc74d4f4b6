"""The report as JSON and as lines for a terminal, and what is in every form of it."""

import json
import math
from dataclasses import replace

from raysys.config.schema import SYSTEMS
from raysys.evaluate.report import (
    SYSTEM_DESCRIPTIONS,
    SYSTEM_REASONS,
    report_html,
    report_json,
    report_lines,
)
from raysys.evaluate.significance import Interval
from tests.unit.evaluate.reports import EMPTY, against_production, report, system


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


def test_lifts_against_a_baseline_have_its_name_in_json() -> None:
    content = report_json(against_production())
    assert content["compare_to"] == "production"
    assert content["rungs"][0]["name"] == "production"
    assert content["rungs"][2]["lift_vs_production"] == {"value": 0.09, "low": 0.05, "high": 0.13}
    assert not [rung for rung in content["rungs"] if "lift_vs_zero_shot" in rung]
    assert content["shelf"]["production"]["p@5"]["value"] == 0.25
    assert content["shelf_lifts"] == {"fine_tuned": {"p@5": {"value": 0.2, "low": 0.1, "high": 0.3}}}


def test_lines_have_a_table_for_attribute_precision_and_a_line_for_the_index() -> None:
    lines = report_lines(against_production())
    assert lines[0].endswith("nDCG@5 against production")
    assert lines[8].split() == ["system", "P@5", "P@5", "against", "production"]
    assert lines[10] == "fine_tuned  0.300 [0.290, 0.320]  +20.0% [+10.0%, +30.0%]"
    assert lines[11] == (
        "    index  hnsw, ef_search 64 against exact search, 200 queries: recall@1 0.990 [0.980, 1.000], "
        "recall@10 0.950 [0.940, 0.960], P@5 by exact 0.330 [0.320, 0.350], P@5 by index 0.320 [0.310, 0.340]"
    )


def test_json_has_the_index_beside_exact_search() -> None:
    content = report_json(report())["index"]
    assert (content["kind"], content["settings"]) == ("hnsw", {"ef_search": 64})
    assert (content["queries"], content["unknown_queries"]) == (200, 3)
    assert content["recall"]["recall@10"] == {"value": 0.95, "low": 0.94, "high": 0.96}
    assert (content["p@5"]["exact"]["value"], content["p@5"]["index"]["value"]) == (0.33, 0.32)
    assert content["lift_vs_exact"]["value"] == -0.03
    assert "index" not in report_json(EMPTY)


def test_every_built_in_system_has_a_description() -> None:
    assert tuple(SYSTEM_DESCRIPTIONS) == tuple(SYSTEM_REASONS) == SYSTEMS
