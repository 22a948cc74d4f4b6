"""A million items on sixteen cores, worked out by hand."""

from __future__ import annotations

from raysys.bench.measure import Finding, Spread, Standing
from raysys.bench.pack import OURS, conclusions


def finding(num_items: int, rate: float, memory_megabytes: int) -> Finding:
    standing = Standing(Spread(rate, rate, rate), 1.0, 1.0, memory_megabytes * 10**6, 0, {})
    return Finding("case", "items/s", OURS, OURS, {"num_items": num_items, "cores": 2}, {OURS: standing})


def test_start_and_time_an_item_come_apart() -> None:
    # 10,000 items in 10 s, 100,000 in 55 s: 45 s for 90,000 are 500 us each, which leaves 5 s of start.
    # A million at 500 us is 500 s on 2 cores, 62.5 s on 16; with the start 67.5 s.
    lines = conclusions([finding(10_000, 1000.0, 300), finding(100_000, 100_000 / 55, 420)])
    assert lines == [
        "10,000 items took 10.0 s and 100,000 took 55.0 s: (55.0 - 10.0) s / 90,000 = 500 us an item on 2 cores, "
        "after 5.0 s of start",
        "1,000,000 items on 16 cores, if the cores stay the bound: 5.0 s + 1,000,000 x 500 us x 2 / 16 = 68 s",
        "peak memory grew by 120 MB over 90,000 items",
    ]


def test_one_size_counts_the_start_among_the_items() -> None:
    # 2,000 items in 8 s are 4 ms each: a million takes 4,000 s on 2 cores, 500 s on 16.
    lines = conclusions([finding(2000, 250.0, 300)])
    assert (
        lines[0] == "2,000 items took 8.0 s: 8.0 s / 2,000 = 4000 us an item on 2 cores, after 0.0 s of start"
    )
    assert lines[1].endswith("0.0 s + 1,000,000 x 4000 us x 2 / 16 = 500 s")
