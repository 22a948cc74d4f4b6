"""Settings of `raysys evaluate`: the interaction log, attribute precision and the report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from raysys.config.section import HubIdOrPath, Section, SplitName, UriPath


class SimulatedLog(Section):
    """An interaction log simulated from known attributes, with position bias. Reports mark it as
    simulated."""

    kind: Literal["simulated"] = "simulated"
    queries: PositiveInt = 1000
    """Number of impressions to simulate."""
    shelf_size: Annotated[int, Field(ge=5, le=100)] = 12
    """Items shown per impression."""
    weights: dict[str, PositiveFloat] = {"kind": 0.6, "colour": 0.25, "pattern": 0.15}
    """Latent or public attributes that make a shown item relevant, with the weight of an equal value."""
    position_bias: NonNegativeFloat = 0.35
    """The item at position p (from 0) is viewed with probability 1 / (1 + p) ** position_bias."""
    seed: NonNegativeInt = 11
    """Random seed of the simulation."""


class RecordedLog(Section):
    """Your interaction log, as a Parquet table."""

    kind: Literal["recorded"] = "recorded"
    path: Annotated[str, UriPath()]
    """Local path or URI of a Parquet file with the columns impression_id, query_id, item_id, position and
    tapped."""


class AttributePrecisionConfig(Section):
    """Evaluation without a log: the share of the first k neighbours with the query's attribute values."""

    query_split: SplitName = "test"
    """Split of the query items."""
    gallery_splits: tuple[SplitName, ...] = ("test", "val")
    """Splits of the items that are searched."""
    where: dict[str, str] = {}
    """Attribute values that query and gallery items must have. Empty: use all items of the splits."""
    exclude_same: tuple[str, ...] = ("seller",)
    """A gallery item with the query's value of one of these attributes is excluded."""
    match: tuple[str, ...] = ("category_fine", "colour")
    """A neighbour is correct if all of these attributes equal the query's."""
    k: PositiveInt = 5
    """Number of neighbours per query."""


class EvaluateConfig(Section):
    """`raysys evaluate`: compare encoders on an interaction log and write the report."""

    log: Annotated[SimulatedLog | RecordedLog, Field(discriminator="kind")] = SimulatedLog()
    """The interaction log on which encoders re-rank the shown items."""
    attribute_precision: AttributePrecisionConfig | None = None
    """Measure attribute precision, too. Null: only the log."""
    splits: tuple[SplitName, ...] = ("test",)
    """Splits of a simulated log's queries and candidates. The default is the only split that neither trained
    the model nor selected a checkpoint."""
    mobilenet: Annotated[str, HubIdOrPath()] = "google/mobilenet_v2_1.0_224"
    """MobileNetV2, the baseline of the published result: a Hugging Face hub id or a local path."""
    bootstrap_samples: PositiveInt = 2000
    """Resamples for the 95 % bootstrap intervals."""
    seed: NonNegativeInt = 13
    """Random seed of the bootstrap, of ties and of the `random` system."""
    neighbour_grid_queries: NonNegativeInt = 8
    """Queries that the report shows with their neighbours before and after training."""
