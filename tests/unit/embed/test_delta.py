"""Which earlier set is used, and what is counted as carried over and removed."""

from pathlib import Path

import numpy as np
import pytest

from raysys.artifacts import ArtifactSpec, EmbeddingSetManifest
from raysys.config.schema import EmbedConfig
from raysys.embed.delta import Changes, count_changes, find_earlier, open_vectors
from raysys.errors import InputError, MissingError, SpaceMismatch
from tests.embedding_sets import publish_set

OLD = {"train-a-0.parquet": [("a", b"A"), ("b", b"B")], "train-b-0.parquet": [("c", b"C")]}


def spec_at(uri: str) -> ArtifactSpec:
    return ArtifactSpec(uri, EmbeddingSetManifest, {"precision": "fp32", "new": True}, {})


def test_published_set_of_the_same_space_is_found_by_itself(tmp_path: Path) -> None:
    uri = str(tmp_path / "set")
    manifest = publish_set(uri, OLD, np.eye(3, dtype=np.float32))
    earlier = find_earlier(spec_at(uri), "s", EmbedConfig())
    assert earlier is not None
    assert (earlier.uri, earlier.manifest) == (uri, manifest)
    assert find_earlier(spec_at(uri), "another space", EmbedConfig()) is None
    assert find_earlier(spec_at(uri), "s", EmbedConfig(precision="bf16")) is None
    assert find_earlier(spec_at(uri), "s", EmbedConfig(reuse="none")) is None
    assert find_earlier(spec_at(str(tmp_path / "nothing")), "s", EmbedConfig()) is None


def test_named_set_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    uri, spec = str(tmp_path / "named"), spec_at(str(tmp_path / "set"))
    with pytest.raises(MissingError, match="named: no EmbeddingSet here"):
        find_earlier(spec, "s", EmbedConfig(reuse=uri))
    publish_set(uri, OLD, np.eye(3, dtype=np.float32))
    assert find_earlier(spec, "s", EmbedConfig(reuse=uri)) is not None
    with pytest.raises(SpaceMismatch, match=f"embed.reuse: {uri} is of embedding space s, the encoder of t"):
        find_earlier(spec, "t", EmbedConfig(reuse=uri))
    with pytest.raises(InputError) as caught:
        find_earlier(spec, "s", EmbedConfig(reuse=uri, precision="bf16"))
    assert str(caught.value) == (
        f"embed.reuse: {uri} was embedded in fp32, embed.precision is bf16; set one of them"
    )


def test_changes_are_counted_by_content_and_by_id(tmp_path: Path) -> None:
    uri = str(tmp_path / "set")
    publish_set(uri, OLD, np.eye(3, dtype=np.float32))
    earlier = find_earlier(spec_at(uri), "s", EmbedConfig())
    assert earlier is not None
    # `a` is unchanged, `b` has another photo, `c` is gone, `d` is new with the photo of `c`.
    publish_set(
        str(tmp_path / "new"),
        {"train-a-0.parquet": [("a", b"A"), ("b", b"B2"), ("d", b"C")]},
        np.eye(3, dtype=np.float32),
    )
    (folder,) = (tmp_path / "new").glob("version-*")
    assert count_changes(open_vectors(earlier, str(folder)), earlier, str(folder)) == Changes(
        num_carried_over=2, num_removed=1
    )
