"""A drawn catalogue is reproducible, and its latent attributes are in one file only."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from PIL import Image

from raysys import artifacts, storage
from raysys.artifacts import CatalogManifest, specs
from raysys.config import Config
from raysys.config.schema import DrawnCatalog
from raysys.synth import catalog
from tests.catalogs import read_catalog

SECTION = DrawnCatalog(num_items=60, size_px=32)


def draw(root: Path, section: DrawnCatalog = SECTION) -> CatalogManifest:
    spec = specs.drawn_catalog(Config(root=str(root), catalog=section))
    return catalog.draw_catalog(spec, section, map)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with a drawn catalogue."""
    folder = tmp_path_factory.mktemp("drawn")
    draw(folder)
    return folder


def test_same_section_gives_the_same_fingerprint(root: Path, tmp_path: Path) -> None:
    first = artifacts.open_artifact(str(root / "catalog"), CatalogManifest)
    assert first.num_items == 60
    assert draw(tmp_path).fingerprint == first.fingerprint


def test_other_seed_gives_another_fingerprint(root: Path, tmp_path: Path) -> None:
    first = artifacts.open_artifact(str(root / "catalog"), CatalogManifest)
    assert draw(tmp_path, SECTION.model_copy(update={"seed": 8})).fingerprint != first.fingerprint


def test_latent_attributes_are_columns_of_one_file_only(root: Path) -> None:
    names = set(storage.list_files(str(root / "catalog")))
    photos = {name for name in names if name.startswith("images/") and name.endswith(".jpg")}
    assert len(photos) == 60
    assert names - photos == {"items.csv", "latent.parquet", "manifest.json"}
    public = pacsv.read_csv(root / "catalog/items.csv").column_names
    latent = pq.read_schema(root / "catalog/latent.parquet").names
    assert public == ["item_id", "title", "image", "seller", "category", "price", "listed_at"]
    assert latent == ["item_id", "kind", "colour", "pattern", "style", "relisted_from"]


def test_photos_have_no_metadata(root: Path) -> None:
    for path in sorted((root / "catalog/images").iterdir()):
        with Image.open(io.BytesIO(path.read_bytes())) as photo:
            assert photo.size == (32, 32)
            assert not photo.getexif()
            assert not {"comment", "exif", "xmp", "icc_profile"} & set(photo.info)


def test_drawn_catalogue_is_read_as_a_table(root: Path) -> None:
    rows = read_catalog(catalog.as_table(str(root / "catalog")))
    latent = pq.read_table(root / "catalog/latent.parquet")
    assert [row.item_id for row in rows] == latent.column("item_id").to_pylist()
    assert set(rows[0].attributes) == {"seller", "category", "price", "listed_at"}
    assert all(Path(str(row.photo)).is_file() for row in rows)
