"""The plan of `bench scaling` is computed from the configured numbers."""

from __future__ import annotations

from raysys.bench import scaling
from raysys.bench.config import BenchConfig


def test_plan_states_its_assumptions_and_scales_them() -> None:
    lines = scaling.plan(BenchConfig(gpu_pairs_per_s=500.0, gpus=(1, 8)))
    assert lines[0].startswith("plan, not measured: 500 pairs/s of one GPU")
    # 512 pairs at 500 a second; 5 cores decode 100 each.
    assert lines[1].startswith("1 GPU: step 1024.0 ms")
    assert "efficiency 1.00, 500 pairs/s, 5 cores to decode" in lines[1]
    assert lines[2].startswith("8 GPUs: ")
