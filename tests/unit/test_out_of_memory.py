"""The words in which libraries say that memory ran out."""

from __future__ import annotations

import pytest
import torch
from torch.distributed import DistBackendError

from raysys.errors import out_of_memory_reason

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
