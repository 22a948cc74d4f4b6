"""The table of metrics: its README rows and the panels of the dashboard name the same metrics."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest

from raysys.serve.metrics import METRICS, RAY_METRICS

ROOT = Path(__file__).parents[3]
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}  # the variable of the dashboard


def exported_names() -> set[str]:
    """The names that Prometheus sees."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    own = {f"ray_{name}{suffix}" for name, metric in METRICS.items() for suffix in suffixes[metric.kind]}
    return own | {f"ray_{name}{suffix}" for name in RAY_METRICS for suffix in ("", "_total")}


@pytest.fixture(scope="module")
def panels() -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = json.loads((ROOT / "cluster/grafana.json").read_text(encoding="utf-8"))[
        "panels"
    ]
    return panels


def test_dashboard_shows_every_metric_and_no_other(panels: list[dict[str, Any]]) -> None:
    expressions = " ".join(target["expr"] for panel in panels for target in panel["targets"])
    named = set(re.findall(r"ray_\w+", expressions))
    assert named - exported_names() == set()
    assert [name for name in [*METRICS, *RAY_METRICS] if f"ray_{name}" not in expressions] == []


def test_panels_have_their_own_places(panels: list[dict[str, Any]]) -> None:
    covered = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(covered)) == len(covered)
    assert all(x < 24 for x, _ in covered)  # columns of Grafana
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_panels_say_what_they_show(panels: list[dict[str, Any]]) -> None:
    for panel in panels:
        defaults = panel["fieldConfig"]["defaults"]
        assert panel["description"].endswith("."), panel["title"]
        assert defaults["unit"], panel["title"]
        assert defaults.get("min") == 0 or "axisSoftMin" in defaults["custom"], panel["title"]
        for target in panel["targets"]:
            assert target["datasource"] == panel["datasource"] == DATASOURCE
            labels = re.findall(r"{{(\w+)}}", target["legendFormat"])
            by = re.search(r"sum by \(([\w, ]+)\)", target["expr"])
            assert set(labels) == set(by[1].split(", ") if by else []) - {"le"}, panel["title"]


def test_each_recall_of_ten_neighbours_is_the_middle_of_its_bucket() -> None:
    buckets = METRICS["raysys_recall"].buckets
    middles = [(low + high) / 2 for low, high in itertools.pairwise(buckets)]
    assert middles == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])


def test_readme_lists_the_metrics() -> None:
    text = (ROOT / "raysys/serve/README.md").read_text(encoding="utf-8")
    for name, metric in METRICS.items():
        labels = ", ".join(metric.labels)
        assert f"| `{name}` | {metric.kind} | {labels} | {metric.meaning} |" in text
    for name, meaning in RAY_METRICS.items():
        assert f"| `{name}` | Ray Serve | | {meaning} |" in text
