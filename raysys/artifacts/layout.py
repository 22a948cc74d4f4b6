"""The URIs of all artifacts under the configured root."""

from __future__ import annotations

from dataclasses import dataclass

from raysys import storage

LATENT = "latent.parquet"  # the latent attributes of a drawn catalogue
SERVED = "served"


@dataclass(frozen=True)
class ArtifactLayout:
    """The URIs of the artifacts of one configuration."""

    root: str
    name: str

    @property
    def catalog(self) -> str:
        """The drawn catalogue, if the configuration has one."""
        return storage.join(self.root, "catalog")

    @property
    def shard_sets(self) -> str:
        """The folder of the ShardSets of all splits."""
        return storage.join(self.root, "shards")

    def shards(self, split: str) -> str:
        """The ShardSet of a split."""
        return storage.join(self.shard_sets, split)

    @property
    def runs(self) -> str:
        """The folder of the training runs of this name, one folder each."""
        return storage.join(self.root, "runs", self.name)

    @property
    def start_encoder(self) -> str:
        """The bundle that training starts from (the zero-shot encoder)."""
        return storage.join(self.root, "encoders", f"{self.name}-start")

    @property
    def fine_tuned_encoder(self) -> str:
        """The fine-tuned bundle, if the delivered one is interpolated from it."""
        return storage.join(self.root, "encoders", f"{self.name}-tuned")

    @property
    def encoder(self) -> str:
        """The bundle that training delivers and that embeds the catalogue."""
        return storage.join(self.root, "encoders", self.name)

    @property
    def projected_encoder(self) -> str:
        """The delivered bundle with a projection."""
        return storage.join(self.root, "encoders", f"{self.name}-pca")

    @property
    def embeddings(self) -> str:
        """The catalogue in the delivered bundle's space."""
        return self.embeddings_named(self.name)

    def embeddings_named(self, name: str) -> str:
        """The catalogue in any other space (`raysys embed --to NAME`)."""
        return storage.join(self.root, "embeddings", name)

    @property
    def projected_embeddings(self) -> str:
        """The catalogue in the projected space."""
        return storage.join(self.root, "embeddings", f"{self.name}-pca")

    def served(self, name: str) -> str:
        """Which encoder and index are served for the index of this name (`raysys/artifacts/served.py`)."""
        return storage.join(self.root, SERVED, f"{name}.json")

    @property
    def index(self) -> str:
        """The index over the vectors of the delivered bundle."""
        return self.index_named(self.name)

    def index_named(self, name: str) -> str:
        """The index over any EmbeddingSet (`raysys index --embeddings NAME`)."""
        return storage.join(self.root, "indexes", name)

    @property
    def report(self) -> str:
        """The report."""
        return storage.join(self.root, "reports", self.name)

    @property
    def frontier(self) -> str:
        """The frontier of sizes and qualities, beside the report: making a report deletes its folder."""
        return storage.join(self.root, "reports", f"{self.name}-frontier")
