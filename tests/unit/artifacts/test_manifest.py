"""The spec hash: which requests are equal."""

from typing import Any

import pytest

from raysys.artifacts import ArtifactSpec, CatalogManifest, InputEntry, ReportManifest

SHARDS = InputEntry(uri="s3://shop/shards", fingerprint="f00d")


@pytest.fixture
def spec() -> ArtifactSpec:
    return ArtifactSpec("/shop/catalog", CatalogManifest, {"num_items": 3}, {"shards": SHARDS})


def with_config(spec: ArtifactSpec, **config: Any) -> ArtifactSpec:
    return ArtifactSpec(spec.uri, spec.manifest, config, spec.inputs)


def test_spec_hash_depends_on_kind_config_and_contents_of_inputs(spec: ArtifactSpec) -> None:
    other_content = {"shards": InputEntry(uri=SHARDS.uri, fingerprint="beef")}
    other_kind = ArtifactSpec(spec.uri, ReportManifest, spec.config, spec.inputs)
    hashes = {
        spec.spec_hash,
        with_config(spec, num_items=4).spec_hash,
        ArtifactSpec(spec.uri, spec.manifest, spec.config, other_content).spec_hash,
        ArtifactSpec(spec.uri, spec.manifest, spec.config, {}).spec_hash,
        other_kind.spec_hash,
    }
    assert len(hashes) == 5


def test_spec_hash_does_not_depend_on_uris_or_order_of_keys(spec: ArtifactSpec) -> None:
    moved = {"shards": InputEntry(uri="/elsewhere", fingerprint=SHARDS.fingerprint)}
    assert ArtifactSpec("/other", spec.manifest, spec.config, moved).spec_hash == spec.spec_hash
    one, other = with_config(spec, a=1, b=2), with_config(spec, b=2, a=1)
    assert one.spec_hash == other.spec_hash
