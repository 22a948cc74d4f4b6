"""The table of metrics: its README rows and the panels of the dashboard name the same metrics."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest

from raysys.serve.metrics import METRICS, RAY_METRICS

ROOT = Path(__file__).parents[3]


def exported_names() -> set[str]:
    """The names that Prometheus sees."""
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    own = {f"ray_{name}{suffix}" for name, metric in METRICS.items() for suffix in suffixes[metric.kind]}
    return own | {f"ray_{name}{suffix}" for name in RAY_METRICS for suffix in ("", "_total")}


def test_dashboard_shows_every_metric_and_no_other() -> None:
    dashboard = json.loads((ROOT / "cluster/grafana.json").read_text(encoding="utf-8"))
    expressions = " ".join(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])
    named = set(re.findall(r"ray_\w+", expressions))
    assert named - exported_names() == set()
    assert [name for name in [*METRICS, *RAY_METRICS] if f"ray_{name}" not in expressions] == []


def test_panels_have_their_own_places() -> None:
    dashboard = json.loads((ROOT / "cluster/grafana.json").read_text(encoding="utf-8"))
    places = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]]
    assert len(set(places)) == len(places) == len({panel["id"] for panel in dashboard["panels"]})


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
