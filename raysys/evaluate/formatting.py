"""Numbers, intervals and tables of a report as text and as JSON-safe values."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from raysys.evaluate.significance import Interval


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of columns; a row of fewer cells than the first does not widen them."""
    if not rows:
        return []
    complete_rows = [row for row in rows if len(row) == len(rows[0])]
    widths = [
        max(len(row[0]) for row in rows),
        *(max(map(len, cells)) for cells in list(zip(*complete_rows, strict=True))[1:]),
    ]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=False)).rstrip()
        for row in rows
    ]


def format_interval(interval: Interval | None, format_number: Callable[[float], str]) -> str:
    """`0.717 [0.703, 0.730]`; a dash for None."""
    if interval is None:
        return "-"
    return f"{format_number(interval.value)} [{format_number(interval.low)}, {format_number(interval.high)}]"


def format_value(value: float) -> str:
    """Three decimals."""
    return f"{value:.3f}"


def format_percent(fraction: float) -> str:
    """A change in percent, with its sign."""
    return f"{100 * fraction:+.1f}%"


def interval_json(interval: Interval) -> dict[str, float | None]:
    """An interval as JSON-safe values."""
    return {
        "value": finite_or_none(interval.value),
        "low": finite_or_none(interval.low),
        "high": finite_or_none(interval.high),
    }


def finite_or_none(number: float) -> float | None:
    """NaN and infinity become None: JSON has neither."""
    return float(number) if math.isfinite(number) else None
