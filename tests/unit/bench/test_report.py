"""The report's table: one row per contender, then conclusions and environment."""

from __future__ import annotations

import io

from raysys.bench.measure import CaseResult, ContenderResult, Spread
from raysys.bench.report import Report

OURS = ContenderResult(
    Spread(120.0, 110.0, 1300.0), 1.5, 0.75, 410_000_000, 90_000_000, {"first_batch_s": Spread(2.0, 1.0, 3.0)}
)
LIMIT = ContenderResult(Spread(160.0, 150.0, 170.0), 2.0, 1.0, 50_000_000, 0, {})
RESULT = CaseResult("1 Mpx", "photos/s", "ours", "limit", {"workers": 2}, {"ours": OURS, "limit": LIMIT})


def test_table_has_a_row_per_contender_then_conclusions_and_environment() -> None:
    out = io.StringIO()
    environment = {"date": "2026-11-22", "commit": "abc"}
    Report("stream", environment, [RESULT], ["ours is faster"]).print_table(out)
    rows = [line.split() for line in out.getvalue().splitlines() if line.strip()]
    assert ["1", "Mpx", "ours", "120.0", "[110.0,", "1,300.0]", "1.50", "0.75", "410", "90", "2.00"] in rows
    assert ["limit", "160.0", "[150.0,", "170.0]", "2.00", "1.00", "50"] in rows
    assert rows[-2:] == [["ours", "is", "faster"], ["date", "2026-11-22,", "commit", "abc"]]
