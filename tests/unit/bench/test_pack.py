"""The projection to a million items on sixteen cores, worked out by hand."""

from __future__ import annotations

from raysys.bench.measure import CaseResult, ContenderResult, Spread
from raysys.bench.pack import RAYSYS, conclusions


def case_result(num_items: int, rate: float, memory_megabytes: int) -> CaseResult:
    contender = ContenderResult(Spread(rate, rate, rate), 1.0, 1.0, memory_megabytes * 10**6, 0, {})
    properties = {"num_items": num_items, "cores": 2}
    return CaseResult("case", "items/s", RAYSYS, RAYSYS, properties, {RAYSYS: contender})


def test_two_sizes_separate_start_up_from_time_per_item() -> None:
    # 10,000 items in 10 s, 100,000 in 55 s: 45 s for 90,000 are 500 us each, which leaves 5 s of start-up.
    # A million at 500 us is 500 s on 2 cores, 62.5 s on 16; with the start-up 67.5 s.
    lines = conclusions([case_result(10_000, 1000.0, 300), case_result(100_000, 100_000 / 55, 420)])
    assert lines == [
        "10,000 items took 10.0 s and 100,000 took 55.0 s: (55.0 - 10.0) s / 90,000 = 500 us per item on 2 cores, "
        "after 5.0 s of start-up",
        "1,000,000 items on 16 cores, if CPU-bound: 5.0 s + 1,000,000 x 500 us x 2 / 16 = 68 s",
        "peak memory grew by 120 MB over 90,000 items",
    ]


def test_one_size_spreads_the_start_up_over_the_items() -> None:
    # 2,000 items in 8 s are 4 ms each: a million takes 4,000 s on 2 cores, 500 s on 16.
    lines = conclusions([case_result(2000, 250.0, 300)])
    assert lines[0].startswith(
        "2,000 items took 8.0 s: 8.0 s / 2,000 = 4000 us per item on 2 cores, after 0.0 s"
    )
    assert lines[1].endswith("0.0 s + 1,000,000 x 4000 us x 2 / 16 = 500 s")
