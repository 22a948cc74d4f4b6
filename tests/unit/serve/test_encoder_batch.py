"""A batch with inputs of two encoders, as during a switch."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import numpy as np

from raysys.serve.encoder_deployment import Input, embed_batch


def test_each_input_is_embedded_once_by_its_own_encoder_and_keeps_its_place() -> None:
    calls = []

    def embed(encoder: Any, values: list[int]) -> np.ndarray:
        calls.append((encoder, values))
        return np.array([[encoder * value] for value in values])

    old: Any = 10  # stands for an encoder, whose identity counts
    new: Any = 1000
    inputs = [Input(old, 1, math.inf), Input(new, 2, math.inf), Input(old, 3, math.inf)]
    vectors = asyncio.run(embed_batch(inputs, embed))
    assert calls == [(10, [1, 3]), (1000, [2])]
    assert [None if vector is None else vector.tolist() for vector in vectors] == [[10], [2000], [30]]
