"""Settings of `raysys evaluate`: the interaction log, attribute precision and the report."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raysys.config.section import Fraction, HubIdOrPath, Section, SplitName, SplitNames, UriPath

SYSTEMS = (
    "random",
    "popularity",
    "thumbnail",
    "mobilenet_v2",
    "zero_shot",
    "fine_tuned",
    "wise_ft",
    "fine_tuned_pca",
)
"""The systems of every report, in its order; those of `evaluate.baselines` follow `mobilenet_v2`."""
CHANCE = "chance"  # the chance level, among the results of the systems


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
    gallery_splits: SplitNames = ("test", "val")
    """Splits of the items that are searched."""
    where: dict[str, str] = {}
    """Attribute values that query and gallery items must have. Empty: use all items of the splits."""
    exclude_same: tuple[str, ...] = ("seller",)
    """A gallery item with the query's value of one of these attributes is excluded."""
    match: tuple[str, ...] = ("category_fine", "colour")
    """A neighbour is correct if all of these attributes equal the query's. A drawn catalogue also has kind,
    colour, pattern and style."""
    k: PositiveInt = 5
    """Number of neighbours per query."""


class BaselineConfig(Section):
    """A system of the report from vectors by any encoder, such as the one in production."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    """Name of the system in the report."""
    embeddings: Annotated[str, UriPath()]
    """Local path or URI of the items' vectors, of any dimension: an EmbeddingSet, or a Parquet file (or a
    folder of them) with the columns item_id and embedding (a list of numbers)."""


class EvaluateConfig(Section):
    """`raysys evaluate`: compare encoders on an interaction log and write the report."""

    log: Annotated[SimulatedLog | RecordedLog, Field(discriminator="kind")] = SimulatedLog()
    """The interaction log on which encoders re-rank the shown items."""
    attribute_precision: AttributePrecisionConfig | None = None
    """Measure attribute precision, too. Null: only the log."""
    baselines: tuple[BaselineConfig, ...] = ()
    """Vectors of the items that are compared by the same protocols, such as those that you serve today."""
    compare_to: str = "zero_shot"
    """The system against which the report gives each lift: a built-in one or a baseline."""
    max_missing_fraction: Fraction = 0.1
    """Maximum share of the items of the evaluation that a baseline may lack. Items that any baseline lacks
    are left out for all systems."""
    index_k: PositiveInt = 10
    """Number of neighbours per query when the index is compared with exact search."""
    splits: SplitNames = ("test",)
    """Splits of a simulated log's queries and candidates. The default is the only split that neither trained
    the model nor selected a checkpoint."""
    mobilenet: Annotated[str, HubIdOrPath()] = "google/mobilenet_v2_1.0_224"
    """MobileNetV2, the baseline of the published result: a Hugging Face hub id or a local path."""
    bootstrap_samples: PositiveInt = 2000
    """Resamples for the 95 % bootstrap intervals."""
    seed: NonNegativeInt = 13
    """Random seed of the bootstrap, of ties and of the `random` system."""
    neighbour_grid_queries: NonNegativeInt = 8
    """Random queries that the report shows with their neighbours before and after training, behind the query
    with the largest gain. 0: neither."""
    catalogue_photos: NonNegativeInt = 48
    """Random photos at the top of the report, so that a reader sees the catalogue. 0: none."""

    @model_validator(mode="after")
    def _named_once(self) -> EvaluateConfig:
        names = [baseline.name for baseline in self.baselines]
        for number, name in enumerate(names):
            if name in (*SYSTEMS, CHANCE):
                raise ValueError(f"baselines: the name '{name}' is taken by the report; choose another")
            if name in names[:number]:
                raise ValueError(f"baselines: two have the name '{name}'; rename one")
        if self.compare_to not in (*SYSTEMS, *names):
            raise ValueError(
                f"compare_to: no system '{self.compare_to}' in the report "
                f"(found: {', '.join((*SYSTEMS, *names))}); name one of them, or add it to baselines"
            )
        return self
