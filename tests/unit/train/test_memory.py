"""What fits into a device's memory, the words of errors when it does not, and the settings that need less."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch.distributed import DistBackendError

from raysys.config.schema import FalseNegativesConfig, TrainConfig
from raysys.train.loss import local_pairs, loss_and_gradients
from raysys.train.memory import (
    batches_bytes,
    largest_micro_batch,
    loss_bytes,
    memory_advice,
    out_of_memory_reason,
)
from tests.unit.train.live_memory import LiveBytes

GB = 10**9


def linear(per_pair: float, capacity: float, sizes: list[int]) -> Callable[[int], float]:
    """Free memory of a device where a pair takes `per_pair`; `sizes` collects what is tried."""

    def free_bytes(size: int) -> float:
        sizes.append(size)
        used = per_pair * size
        return capacity - used if used <= 1.1 * capacity else -math.inf

    return free_bytes


@pytest.mark.parametrize(
    ("share", "capacity", "expected", "tried"),
    [
        (1024, 1024.0, 1024, [16, 64, 1024]),  # all of it fits, exactly
        (1024, 1023.0, 512, [16, 64, 512]),
        (1024, 60.0, 32, [16, 64, 32]),
        (1024, 31.0, 16, [16, 64, 32]),
        (1024, 1.5, 1, [16, 64, 32, 8, 4, 2, 1]),
        (1024, 0.5, None, [16, 64, 32, 8, 4, 2, 1]),
        (704, 100.0, 88, [16, 64, 88]),  # of an elastic run: 704 = 64 x 11
        (7, 3.0, 1, [7, 1]),
        (1, 1.0, 1, [1]),
    ],
)
def test_largest_micro_batch_is_predicted_from_two_small_ones_and_measured(
    share: int, capacity: float, expected: int | None, tried: list[int]
) -> None:
    sizes: list[int] = []
    assert largest_micro_batch(share, linear(1.0, capacity, sizes)) == expected
    assert sizes == tried


def test_micro_batch_is_halved_if_memory_grows_faster_than_predicted() -> None:
    sizes: list[int] = []

    def free_bytes(size: int) -> float:
        sizes.append(size)
        return 1000.0 - size - (0.01 * size**2 if size > 100 else 0)

    assert largest_micro_batch(1024, free_bytes) == 256  # 1000 - 256 - 655 = 89
    assert sizes == [16, 64, 512, 256]


@pytest.mark.parametrize(
    ("rows", "device_gb", "fit"),
    [(1024, 80, True), (32768, 80, True), (65536, 80, False), (32768, 24, False)],
)
def test_batches_stay_on_a_device_that_has_four_times_their_memory(
    rows: int, device_gb: int, fit: bool
) -> None:
    assert batches_bytes(rows, 256, device_gb * GB) == (3 * rows * 196_608 if fit else 0)


def test_loss_takes_no_more_than_its_arithmetic() -> None:
    rows, dimensions, section = 256, 96, TrainConfig(batch_size=256, loss_tile_rows=128)
    vectors = torch.nn.functional.normalize(torch.randn(rows, dimensions), dim=1)
    keys, groups = torch.arange(1, rows + 1), torch.arange(rows)
    pairs = local_pairs(vectors, vectors, keys, groups, first_row=0, all_keys=keys, all_groups=groups)
    with LiveBytes() as live:
        loss_and_gradients(
            pairs, FalseNegativesConfig(), scale=torch.tensor(10.0), bias=torch.tensor(-10.0),
            num_images=rows, tile_rows=section.loss_tile_rows,
        )  # fmt: skip
    bound = loss_bytes(section, rows=rows, workers=1, dimensions=dimensions)
    assert 0.4 * bound < live.peak < bound


NCCL = """NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled cuda error, NCCL version 2.27.5
ncclUnhandledCudaError: Call to CUDA function failed.
Last error:
"""


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has .."),
            "CUDA out of memory",
        ),
        (
            torch.AcceleratorError("CUDA error: out of memory\nSearch for `cudaErrorMemoryAllocation' in .."),
            "CUDA error: out of memory",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
            "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
            "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        ),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        (DistBackendError(f"{NCCL}Cuda failure 2 'out of memory'"), "Cuda failure 2 'out of memory'"),
        (DistBackendError(f"{NCCL}Failed to CUDA calloc 6291456 bytes"), "Failed to CUDA calloc 6291456 bytes"),
        (
            torch._dynamo.exc.BackendCompilerFailed(
                "inductor", torch.OutOfMemoryError("CUDA out of memory. Tried .."), None
            ),
            "OutOfMemoryError: CUDA out of memory",
        ),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried .."),
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried ..",
        ),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), None),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), None),
        (DistBackendError(f"{NCCL}Cuda failure 1 'invalid argument'"), None),
        (DistBackendError("NCCL communicator was aborted on rank 1. Reason: remote process exited"), None),
        (ValueError("out of memory"), None),  # no error of torch
    ],
)  # fmt: skip
def test_out_of_memory_is_recognised_in_the_words_of_each_library(
    error: Exception, reason: str | None
) -> None:
    found = out_of_memory_reason(error)
    assert found is None if reason is None else found is not None and reason in found


def test_out_of_memory_is_found_behind_another_error() -> None:
    error = ValueError("the step failed")
    error.__cause__ = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
    assert out_of_memory_reason(error) == "CUDA out of memory"


def test_memory_advice_names_settings_with_their_values() -> None:
    assert memory_advice(TrainConfig(batch_size=64, workers=4), 4, micro_batch_size=16) == (
        "lower train.micro_batch_size (now 16), or set train.on_out_of_memory=halve (now stop), "
        "or set train.activation_checkpointing=full (now none), or set train.parallel=fsdp (now ddp)"
    )


def test_memory_advice_omits_settings_that_cannot_help() -> None:
    section = TrainConfig(batch_size=4, workers=4, activation_checkpointing="full", parallel="fsdp")
    assert memory_advice(section, 4, micro_batch_size=1) == "use a GPU with more memory, or a smaller encoder"
