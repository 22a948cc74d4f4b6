"""What an evaluation does with few queries, and with W&B that is disabled or fails."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from raysys.config.schema import TrackingConfig
from raysys.evaluate.evaluation import interval_warnings, log_report_to_wandb
from raysys.evaluate.interaction_log import InteractionLog
from raysys.evaluate.report import NeighbourPhoto, QueryNeighbours, ReportData
from raysys.evaluate.reranking import SystemResult
from raysys.evaluate.significance import Interval
from tests.factories import photo

VALUE = Interval(0.5, 0.4, 0.6)


def log_of(query_ids: list[str]) -> InteractionLog:
    shown = np.ones((len(query_ids), 1), dtype=bool)
    return InteractionLog(query_ids, [["a"]] * len(query_ids), shown, shown, simulated=False)


@pytest.mark.parametrize(
    ("query_ids", "counts"),
    [
        (["q"], "1 impressions of 1 query items"),
        ([f"q{number % 29}" for number in range(1000)], "1000 impressions of 29 query items"),
        ([f"q{number}" for number in range(30)], None),
    ],
)
def test_few_query_items_are_a_warning(query_ids: list[str], counts: str | None) -> None:
    warnings = interval_warnings(log_of(query_ids))
    assert [warning.split(":")[0] for warning in warnings] == ([counts] if counts else [])


def report_with_neighbours(num: int) -> ReportData:
    """A report on one query with `num` neighbours by each encoder."""
    neighbours = [NeighbourPhoto(photo(), "red cup", 0.5)] * num
    metrics = {"ndcg@5": VALUE, "hit@1": VALUE, "hit@3": VALUE}
    return ReportData(
        name="small", simulated=False, systems=[SystemResult("random", True, None, metrics, None)],
        attribute_precision=None, loss_curve=[], neighbours=[QueryNeighbours("cup", photo(), neighbours, neighbours)],
        interpolation=None, provenance={},
    )  # fmt: skip


@pytest.fixture
def wandb_tables(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The tables that were logged: name -> columns and rows."""
    tables: dict[str, Any] = {}

    class Run:
        def log_table(self, name: str, columns: list[str], rows: list[list[Any]]) -> None:
            tables[name] = (columns, rows)

        def summarise(self, values: dict[str, float]) -> None:
            assert values == {"report/random/ndcg@5": 0.5}

    @contextlib.contextmanager
    def open_run(*_: Any, **__: Any) -> Iterator[Run]:
        yield Run()

    monkeypatch.setattr("raysys.evaluate.evaluation.open_wandb_run", open_run)
    return tables


@pytest.mark.parametrize("num", [0, 1, 4, 5])
def test_every_row_of_neighbours_has_a_cell_for_each_column(wandb_tables: dict[str, Any], num: int) -> None:
    log_report_to_wandb(report_with_neighbours(num), "run", TrackingConfig(mode="offline"), {})
    columns, (row,) = wandb_tables["report/neighbours"]
    assert len(row) == len(columns) == 12
    assert (columns[1], row[1]) == ("chosen", "chosen at random")
    assert [cell is not None for cell in row] == [True, True, *(([True] * num + [False] * (5 - num)) * 2)]


def test_disabled_tracking_does_not_touch_wandb(wandb_tables: dict[str, Any], tmp_path: Path) -> None:
    log_report_to_wandb(report_with_neighbours(1), str(tmp_path / "run"), TrackingConfig(mode="disabled"), {})
    assert wandb_tables == {}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("error", [ConnectionError("no\nroute"), AssertionError(), PermissionError("run")])
def test_failure_of_wandb_is_a_warning(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("raysys.evaluate.evaluation.open_wandb_run", fail)
    log_report_to_wandb(report_with_neighbours(1), "run", TrackingConfig(mode="offline"), {})
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert record.message.startswith(" evaluate  the report is published, but not in W&B (")
    assert "\n" not in record.message
