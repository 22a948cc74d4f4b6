"""Vectors of an earlier set by content hash: each from its file and row, none from a damaged file."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from raysys.artifacts import EmbeddingSetManifest
from raysys.artifacts.directory import read_manifest
from raysys.columns import content_hash
from raysys.errors import DamagedData
from raysys.stream.earlier_vectors import EarlierVectors
from tests.embedding_sets import publish_set

NUM_FILES, PER_FILE, DIMENSIONS = 5, 40, 8


def unit_vectors(num: int) -> np.ndarray:
    vectors = np.random.default_rng(0).normal(size=(num, DIMENSIONS)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def photo_of(number: int) -> bytes:
    return f"photo {number}".encode()


def hash_of(number: int) -> str:
    return content_hash(photo_of(number), "cup")


VECTORS = unit_vectors(NUM_FILES * PER_FILE)


def publish(folder: Path) -> EarlierVectors:
    files = {
        f"train-{file}-000000000000.parquet": [
            (f"i{number}", photo_of(number)) for number in range(file * PER_FILE, (file + 1) * PER_FILE)
        ]
        for file in range(NUM_FILES)
    }
    manifest = publish_set(str(folder / "old"), files, VECTORS)
    return EarlierVectors.write(str(folder / "old"), manifest, str(folder / "table"))


def test_every_vector_is_found_in_any_order(tmp_path: Path) -> None:
    earlier = publish(tmp_path)
    order = np.random.default_rng(1).permutation(NUM_FILES * PER_FILE).tolist()
    found = earlier.of([hash_of(number) for number in order])
    assert np.array_equal(np.stack([vector for vector in found if vector is not None]), VECTORS[order])


def test_content_that_the_set_lacks_has_no_vector(tmp_path: Path) -> None:
    earlier = publish(tmp_path)
    hashes = [hash_of(999), hash_of(7), "0" * 64, "f" * 64]
    found = earlier.of(hashes)
    assert [vector is None for vector in found] == [True, False, True, True]
    assert earlier.has(hashes) == [False, True, False, False]
    # Half of a hash in common is not enough.
    assert earlier.of([hash_of(7)[:32] + "0" * 32])[0] is None


def test_table_holds_24_bytes_an_item(tmp_path: Path) -> None:
    earlier = publish(tmp_path)
    assert Path(earlier.table_uri).stat().st_size < 24 * NUM_FILES * PER_FILE + 2000


def test_file_that_is_known_to_be_damaged_is_left_out(tmp_path: Path) -> None:
    publish(tmp_path)
    (file,) = (tmp_path / "old").glob("version-*/train-3-*.parquet")
    file.unlink()
    manifest = read_manifest(str(tmp_path / "old"), EmbeddingSetManifest)
    assert manifest is not None
    earlier = EarlierVectors.write(str(tmp_path / "old"), manifest, str(tmp_path / "again"))
    found = earlier.of([hash_of(3 * PER_FILE), hash_of(4 * PER_FILE)])
    assert found[0] is None
    assert found[1] is not None
    assert np.array_equal(found[1], VECTORS[4 * PER_FILE])


def test_bit_that_flipped_is_named_and_not_carried_over(tmp_path: Path) -> None:
    earlier = publish(tmp_path)
    (file,) = (tmp_path / "old").glob("version-*/train-3-*.parquet")
    data = bytearray(file.read_bytes())
    position = data.find(VECTORS[3 * PER_FILE].tobytes()[:4])
    data[position] ^= 1
    file.write_bytes(data)
    with pytest.raises(DamagedData, match=r"train-3-.*: damaged, its SHA-256 differs from the manifest"):
        earlier.of([hash_of(3 * PER_FILE)])


def test_hashes_that_end_in_zeros_are_told_apart(tmp_path: Path) -> None:
    # numpy strips the zeros at the end of a bytes value; equality must not depend on it.
    zeros = "ab" * 14 + "0000" + hashlib.sha256(b"x").hexdigest()[:32]
    shorter = "ab" * 13 + "000000" + zeros[32:]
    earlier = publish(tmp_path)
    assert earlier.has([zeros, shorter]) == [False, False]
