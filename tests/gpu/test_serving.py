"""The encoder of the service on a GPU: CUDA graphs give the vectors of float32 on a CPU, also while two are loaded."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from numpy import ndarray

from raysys.config.schema import ScratchConfig
from raysys.encoder.bundle import open_bundle
from raysys.encoder.siglip import SiglipEncoder
from raysys.synth import generate_items, render_item
from tests.factories import tiny_bundle

PARITY_LIMIT = 1e-3  # 1 - cosine
SIZE = ScratchConfig(image_size_px=64, patch_size_px=16, hidden_size=384, num_layers=8, num_heads=6)
ITEMS = generate_items(30, seed=3)
MAX_BATCH = 12  # no power of two


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    titles = [item.title for item in ITEMS]
    return str(tiny_bundle(tmp_path_factory.mktemp("serving") / "bundle", titles, size=SIZE))


@pytest.fixture(scope="module")
def on_cpu(bundle: str) -> SiglipEncoder:
    return open_bundle(bundle)


@pytest.fixture(scope="module")
def pixels(on_cpu: SiglipEncoder) -> ndarray:
    return np.stack([on_cpu.image(render_item(item, 128)) for item in ITEMS])


def warm_encoder(bundle: str, *, compiled: bool = False) -> SiglipEncoder:
    encoder = open_bundle(bundle, device="cuda", precision="bf16")
    encoder.warm_up(MAX_BATCH, compiled=compiled)
    return encoder


def distance(found: ndarray, expected: ndarray) -> float:
    return float((1.0 - (found * expected).sum(axis=1)).max())


@pytest.mark.parametrize("compiled", [False, True])
def test_each_batch_size_is_within_the_parity_limit(
    bundle: str, on_cpu: SiglipEncoder, pixels: ndarray, compiled: bool
) -> None:
    encoder, titles = warm_encoder(bundle, compiled=compiled), [item.title for item in ITEMS]
    photo_vectors, title_vectors = on_cpu.embed_pixels(pixels), on_cpu.embed_titles(titles)
    for size in range(1, MAX_BATCH + 3):  # the last two have no graph
        first = size % 5
        rows = slice(first, first + size)
        assert distance(encoder.embed_pixels(pixels[rows]), photo_vectors[rows]) < PARITY_LIMIT
        assert distance(encoder.embed_titles(titles[rows]), title_vectors[rows]) < PARITY_LIMIT


@pytest.mark.parametrize("compiled", [False, True])
def test_threads_share_an_encoder_while_another_one_is_loaded(
    bundle: str, on_cpu: SiglipEncoder, pixels: ndarray, compiled: bool
) -> None:
    """As during a switch of versions."""
    encoder, expected = warm_encoder(bundle), on_cpu.embed_pixels(pixels)
    with ThreadPoolExecutor(4) as threads:
        loading = threads.submit(warm_encoder, bundle, compiled=compiled)
        slices = [slice(first % 18, first % 18 + 1 + first % 12) for first in range(300)]
        for rows, found in zip(
            slices, threads.map(lambda rows: encoder.embed_pixels(pixels[rows]), slices), strict=True
        ):
            assert distance(found, expected[rows]) < PARITY_LIMIT
        assert distance(loading.result().embed_pixels(pixels[:5]), expected[:5]) < PARITY_LIMIT
