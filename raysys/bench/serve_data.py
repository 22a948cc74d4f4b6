"""The input of `raysys bench serve`: a model with random weights, an index of drawn vectors, photos."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from raysys.artifacts import ArtifactSpec, EncoderBundleManifest, IndexBundleManifest, specs
from raysys.bench import index_data
from raysys.bench.config import BenchConfig, BenchRunConfig
from raysys.bench.models import write_start
from raysys.bench.photos import photo_like
from raysys.config import load_config
from raysys.encoder import start
from raysys.encoder.bundle import publish_bundle
from raysys.index.build import publish_index
from raysys.synth import generate_items

_SEED, _NUM_PHOTOS = 7, 16


@dataclass(frozen=True)
class ServeWork:
    """What is served, and the load."""

    config_path: Path
    encoder_uri: str
    index_uri: str
    bench: BenchConfig
    photos: tuple[Path, ...]
    """The photos to upload; none for item queries."""
    dimensions: int
    max_requests: int
    """Of a gateway."""
    device: str
    precision: str
    is_compiled: bool
    """Of the encoder."""

    @property
    def low_rate(self) -> int:
        """Requests per second at low load."""
        return self.bench.serve_photo_rate if self.photos else self.bench.serve_item_rate


def write_work(config: BenchRunConfig, folder: Path) -> ServeWork:
    """Publish a model with random weights and an index of drawn vectors, as the stages name them."""
    changes = {"root": str(folder / "root"), "projection": {"dimensions": None}}
    path = folder / "serve.yaml"
    tree = {**config.model_dump(mode="json", exclude={"bench"}, exclude_unset=True), **changes}
    # The load repeats a few photos: each one is to be embedded.
    tree["serve"] = {**tree.get("serve", {}), "vector_cache_items": 0}
    path.write_text(json.dumps(tree), encoding="utf-8")
    served = load_config(str(path), [])
    encoder_uri, index_uri = str(specs.served_encoder(served)), specs.served_index(served)
    spec = ArtifactSpec(encoder_uri, EncoderBundleManifest, {}, {})
    encoder = publish_bundle(
        spec, partial(write_start, served), text=start.text_preprocessing(served.encoder)
    )
    index_data.write_work(
        folder, config.bench.serve_vectors, encoder.dimensions, 1, (), space_id=encoder.space_id
    )
    publish_index(
        ArtifactSpec(index_uri, IndexBundleManifest, {}, {}), str(folder / "embeddings"), served.index
    )
    return ServeWork(
        path,
        encoder_uri,
        index_uri,
        config.bench,
        (),
        encoder.dimensions,
        served.serve.max_requests,
        served.serve.device,
        served.serve.chosen_precision,
        served.serve.is_compiled,
    )


def write_photos(bench: BenchConfig, folder: Path) -> tuple[Path, ...]:
    paths = []
    for number, item in enumerate(generate_items(_NUM_PHOTOS, _SEED)):
        paths.append(folder / f"{number}.jpg")
        paths[-1].write_bytes(photo_like(item, bench.serve_megapixels, _SEED + number))
    return tuple(paths)
