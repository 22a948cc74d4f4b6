"""The sizes of CUDA graphs; `tests/gpu/test_serving.py` tests the graphs."""

from __future__ import annotations

import pytest

from raysys.encoder.cuda_graphs import graph_sizes


@pytest.mark.parametrize(
    ("max_rows", "sizes"), [(1, (1,)), (2, (1, 2)), (12, (1, 2, 4, 8, 12)), (16, (1, 2, 4, 8, 16))]
)
def test_sizes_are_powers_of_two_and_the_maximum(max_rows: int, sizes: tuple[int, ...]) -> None:
    assert graph_sizes(max_rows) == sizes
