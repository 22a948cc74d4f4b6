"""Embedding in bfloat16 on a GPU, plain or compiled, stays within the parity limit of float32 on a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from raysys.config.schema import EmbedConfig, ScratchConfig
from raysys.embed.options import EncoderOptions
from raysys.embed.shared_encoder import SharedEncoder, open_encoder
from raysys.encoder.bundle import open_bundle
from raysys.synth import generate_items, render_item
from tests.factories import tiny_bundle

PARITY_LIMIT = 1e-3  # 1 - cosine
SIZE = ScratchConfig(image_size_px=64, patch_size_px=16, hidden_size=384, num_layers=8, num_heads=6)


def test_vectors_in_bf16_are_within_the_parity_limit(tmp_path: Path) -> None:
    items = generate_items(64, seed=3)
    bundle = tiny_bundle(tmp_path / "bundle", [item.title for item in items], size=SIZE)
    photos = [render_item(item, 128) for item in items]
    expected = open_bundle(bundle).embed_photos(photos)
    found = open_bundle(bundle, device="cuda", precision="bf16").embed_photos(photos)
    distances = 1.0 - (np.asarray(found) * np.asarray(expected)).sum(axis=1)
    assert float(distances.max()) < PARITY_LIMIT


def test_compiled_vectors_of_batches_across_blocks_are_within_the_parity_limit(tmp_path: Path) -> None:
    items = generate_items(45, seed=3)
    bundle = tiny_bundle(tmp_path / "bundle", [item.title for item in items], size=SIZE)
    plain = open_bundle(bundle)
    pixels = np.stack([plain.image(render_item(item, 128)) for item in items])
    expected = plain.embed_pixels(pixels)
    options = EncoderOptions.of(EmbedConfig(use_gpu=True, batch_size=16))
    assert (options.precision, options.is_compiled) == ("bf16", True)
    encoder = SharedEncoder(open_encoder(bundle, options), options)
    futures = [encoder.submit(list(pixels[rows])) for rows in (slice(0, 20), slice(20, 22), slice(22, 45))]
    found = np.concatenate([future.result() for future in futures])
    assert float((1.0 - (found * expected).sum(axis=1)).max()) < PARITY_LIMIT
    assert encoder.take_busy_s() > 0
