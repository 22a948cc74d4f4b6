"""What the device and the cores determine for the encoders of `raysys embed`."""

from __future__ import annotations

import pytest

from raysys.cluster.capacity import Node
from raysys.config.schema import EmbedConfig
from raysys.embed.options import EncoderOptions, options_line, options_on


def test_gpu_embeds_in_bf16_compiled_in_fixed_batches_and_a_cpu_in_fp32() -> None:
    assert EncoderOptions.of(EmbedConfig(use_gpu=True)) == EncoderOptions("cuda", "bf16", 64, True)
    assert EncoderOptions.of(EmbedConfig()) == EncoderOptions("cpu", "fp32", 64, False)
    assert EncoderOptions.of(EmbedConfig(use_gpu=True, compile=False)).has_fixed_batches
    assert not EncoderOptions.of(EmbedConfig()).has_fixed_batches


def test_precision_and_compile_can_be_set_by_hand() -> None:
    section = EmbedConfig(use_gpu=True, precision="fp32", compile=False)
    assert EncoderOptions.of(section) == EncoderOptions("cuda", "fp32", 64, False)
    assert EncoderOptions.of(EmbedConfig(precision="bf16", compile=True)) == EncoderOptions("cpu", "bf16", 64)


@pytest.mark.parametrize(
    ("cpus", "cores", "actors", "expected"),
    [
        ([8], 2, 1, 2),  # 8 logical CPUs on two cores
        ([16], 16, 1, 16),
        ([16], 16, 4, 4),
        ([16, 16], 32, 2, 16),
        ([16, 16], 32, 1, 16),  # one encoder cannot use two machines
        ([8], 2, 3, 1),
    ],
)
def test_encoders_on_a_cpu_share_all_cores(cpus: list[int], cores: int, actors: int, expected: int) -> None:
    nodes = [Node(f"10.0.0.{number}", {"CPU": float(count)}) for number, count in enumerate(cpus)]
    assert options_on(EmbedConfig(actors=actors), nodes, cores).num_threads == expected


@pytest.mark.parametrize(("num_threads", "expected"), [(None, 3), (1, 3), (2, 3), (16, 10)])
def test_actor_gets_enough_blocks_for_its_threads(num_threads: int | None, expected: int) -> None:
    assert EncoderOptions("cpu", "fp32", 64, num_threads=num_threads).blocks_at_a_time == expected


def test_line_states_precision_and_threads() -> None:
    node = Node("10.0.0.1", {"CPU": 16.0, "GPU": 1.0})
    on_cpu, on_gpu = options_on(EmbedConfig(), [node], 16), options_on(EmbedConfig(use_gpu=True), [node], 16)
    assert options_line(on_cpu) == "an encoder computes in fp32 on 16 CPU threads"
    assert options_line(on_gpu) == "an encoder computes in bf16, compiled, on a GPU"
