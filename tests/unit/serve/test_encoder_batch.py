"""A batch with inputs of two encoders, as during a switch."""

from __future__ import annotations

import asyncio
import math
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from raysys.config.schema import ServeConfig
from raysys.serve.encoder_deployment import Input, embed_batch, num_threads


def test_each_input_is_embedded_once_by_its_own_encoder_and_keeps_its_place() -> None:
    calls = []

    def embed(encoder: Any, values: list[int]) -> np.ndarray:
        calls.append((encoder, values))
        return np.array([[encoder * value] for value in values])

    old: Any = 10  # stands for an encoder, whose identity counts
    new: Any = 1000
    inputs = [Input(old, 1, math.inf), Input(new, 2, math.inf), Input(old, 3, math.inf)]
    with ThreadPoolExecutor(1) as threads:
        vectors = asyncio.run(embed_batch(inputs, embed, threads))
    assert calls == [(10, [1, 3]), (1000, [2])]
    assert [None if vector is None else vector.tolist() for vector in vectors] == [[10], [2000], [30]]


@pytest.mark.parametrize(
    ("settings", "photo_s", "expected"),
    [
        ({}, 0.5, 16),
        ({}, 0.01, 1),
        ({"encoder_replicas": 3}, 0.5, 5),
        ({"encoder_replicas": 32}, 0.5, 1),
        ({"encoder_replicas": 3, "encoder_threads": 8}, 0.01, 8),
    ],
)
def test_replicas_on_a_cpu_share_the_cores_of_a_node(
    settings: dict[str, Any], photo_s: float, expected: int
) -> None:
    assert num_threads(ServeConfig.model_validate(settings), 16, photo_s) == expected
