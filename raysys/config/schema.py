"""The complete configuration: every setting of raysys with its type, default and rules.

Defaults are defined only here and in the modules of some sections (catalog.py, pack.py, train.py, embed.py,
index.py, evaluate.py, store.py, serve.py). Sections follow the order of the data, and a stage receives its
own section.
The docstring below a field is its documentation in `raysys config --schema` and `raysys config --reference`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raysys.config.catalog import (
    AttributeType,
    Columns,
    DrawnCatalog,
    FolderCatalog,
    FolderColumns,
    TableCatalog,
    TableFormat,
    WebDatasetCatalog,
    WebDatasetColumns,
)
from raysys.config.embed import EmbedConfig, ProjectionConfig
from raysys.config.evaluate import (
    CHANCE,
    SYSTEMS,
    AttributePrecisionConfig,
    BaselineConfig,
    EvaluateConfig,
    RecordedLog,
    SimulatedLog,
)
from raysys.config.index import BudgetConfig, FrontierConfig, IndexConfig
from raysys.config.pack import (
    AttributeSplit,
    ColumnSplit,
    DuplicatesConfig,
    GroupSplit,
    PackConfig,
    TimeSplit,
    moment_key,
)
from raysys.config.section import SPLITS, Fraction, HubIdOrPath, RunName, Section, SplitName, UriPath
from raysys.config.serve import ServeConfig
from raysys.config.store import StoreConfig
from raysys.config.train import (
    AugmentConfig,
    FalseNegativesConfig,
    LoraConfig,
    RobustConfig,
    TeacherConfig,
    TrainConfig,
    ValidationConfig,
)

__all__ = [
    "CHANCE",
    "SPLITS",
    "SYSTEMS",
    "AttributePrecisionConfig",
    "AttributeSplit",
    "AttributeType",
    "AugmentConfig",
    "BaselineConfig",
    "BudgetConfig",
    "ColumnSplit",
    "Columns",
    "Config",
    "DrawnCatalog",
    "DuplicatesConfig",
    "EmbedConfig",
    "EncoderConfig",
    "EvaluateConfig",
    "FalseNegativesConfig",
    "FolderCatalog",
    "FolderColumns",
    "Fraction",
    "FrontierConfig",
    "GroupSplit",
    "HubConfig",
    "IndexConfig",
    "LoraConfig",
    "PackConfig",
    "ProjectionConfig",
    "RayConfig",
    "RecordedLog",
    "RobustConfig",
    "ScratchConfig",
    "Section",
    "ServeConfig",
    "SimulatedLog",
    "SplitName",
    "StorageConfig",
    "StoreConfig",
    "StreamConfig",
    "TableCatalog",
    "TableFormat",
    "TeacherConfig",
    "TimeSplit",
    "TrackingConfig",
    "TrainConfig",
    "ValidationConfig",
    "WebDatasetCatalog",
    "WebDatasetColumns",
    "moment_key",
]


class ScratchConfig(Section):
    """Size of the small SigLIP model that `encoder.start: scratch` builds with random weights, without
    network."""

    image_size_px: PositiveInt = 64
    """Side length of the model's input, in pixels; a multiple of `patch_size_px`."""
    patch_size_px: PositiveInt = 8
    """Side length of a patch, in pixels."""
    hidden_size: PositiveInt = 128
    """Width of both towers and of the embeddings; a multiple of `num_heads`."""
    mlp_ratio: PositiveInt = 2
    """Width of the image tower's MLPs as a multiple of `hidden_size`; the text tower's is 4."""
    num_layers: PositiveInt = 6
    """Layers of the image tower."""
    num_heads: PositiveInt = 4
    """Attention heads per layer."""
    text_num_layers: PositiveInt = 2
    """Layers of the text tower."""
    vocab_size: PositiveInt = 2000
    """Maximum size of the vocabulary, which is learnt from the training titles."""
    max_length: PositiveInt = 24
    """Titles are truncated or padded to this many tokens."""
    logit_bias: float = -4.0
    """Initial bias of the loss. The default is near the log-odds of a positive in a small batch; SigLIP's -10
    is for 32,768 pairs."""

    @model_validator(mode="after")
    def _divisible(self) -> ScratchConfig:
        if self.image_size_px % self.patch_size_px:
            raise ValueError(
                f"image_size_px {self.image_size_px} is not a multiple of patch_size_px {self.patch_size_px}"
            )
        if self.hidden_size % self.num_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not a multiple of num_heads {self.num_heads}"
            )
        return self


class EncoderConfig(Section):
    """The checkpoint that training starts from, and how titles are prepared for it."""

    start: Annotated[str, HubIdOrPath(keywords=("tiny", "scratch"))] = "tiny"
    """A Hugging Face hub id (`google/siglip-base-patch16-256-multilingual`), a local path, `tiny`: the small
    pretrained model that raysys ships, or `scratch`: a small model with random weights."""
    revision: str | None = None
    """Branch, tag or commit of the hub repository. Null: its default branch."""
    scratch: ScratchConfig = ScratchConfig()
    lower_case: bool | None = None
    """Convert titles to lower case. Null: as the checkpoint was trained, which is true for SigLIP and SigLIP
    2."""
    seed: NonNegativeInt = 7
    """Random seed of the `scratch` model's weights and of training (order, augmentation)."""


class StreamConfig(Section):
    """How shards are read, shuffled and decoded into batches."""

    shuffle_window_shards: PositiveInt = 4
    """Shards are shuffled over the epoch; samples are shuffled within windows of this many shards."""
    decode_concurrency: PositiveInt | None = None
    """Ray actors that decode photos in parallel, one CPU each. Null: the CPUs of the cluster that training
    workers or encoders, readers, repartitioning and the driver leave."""
    read_concurrency: PositiveInt | None = None
    """Windows of shards that are read in parallel, one CPU each. Null: a ninth of the CPUs of the cluster
    that training workers or encoders leave, at least one."""
    first_batch_timeout_s: PositiveFloat = 600.0
    """Training and embedding stop if the first batch is not ready after this time, in seconds, and name what
    waits for what. Later, a stream that delivers nothing for this time is a warning."""
    block_megabytes: PositiveInt = 8
    """Compressed photos per Ray Data block, in MiB. A decoded block is about ten times larger."""
    object_store_megabytes: PositiveInt | None = None
    """Ray Data stops reading while its blocks use this much of the object store, in MiB. Null: Ray Data's own
    limit."""
    scaled_decoding: bool = True
    """Training only: decode JPEGs that are larger than needed at 1/2, 1/4 or 1/8 of their size."""
    max_bad_fraction: Fraction = 0.01
    """Samples that cannot be used are skipped and counted. The stage stops if they exceed this share of an
    epoch."""


class TrackingConfig(Section):
    """Logging to Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: WANDB_MODE if it is set, else online if WANDB_API_KEY is set, else offline."""
    project: str = "raysys"
    """Project of the runs."""
    entity: str | None = None
    """User or team that owns the project. Null: the API key's default."""
    connect_timeout_s: PositiveFloat = 30.0
    """Online: maximum wait for the first answer of W&B, in seconds. Without one, a run is logged offline."""
    finish_timeout_s: PositiveFloat = 60.0
    """Online: maximum wait at the end for W&B to receive what it has not yet, in seconds. The rest stays on
    the disk, for `wandb sync`."""


class StorageConfig(Section):
    """Object stores (`s3://`, `gs://`): how long a command waits for them."""

    contact_timeout_s: PositiveFloat = 30.0
    """Maximum wait for the first answer of a store, in seconds."""
    operation_timeout_s: PositiveFloat = 3600.0
    """Maximum duration of one read, listing or upload of a file, in seconds."""


class HubConfig(Section):
    """The Hugging Face hub: how long a command waits for it."""

    contact_timeout_s: PositiveFloat = 10.0
    """Maximum wait for an answer of the hub, in seconds. In the middle of a download: for the next bytes,
    before one of five retries (HF_HUB_ETAG_TIMEOUT and HF_HUB_DOWNLOAD_TIMEOUT take precedence)."""
    download_timeout_s: PositiveFloat = 3600.0
    """Maximum duration of the download of a part of a checkpoint, in seconds."""


class RayConfig(Section):
    """The Ray cluster to use."""

    address: str | None = None
    """Address of a running cluster. Null: RAY_ADDRESS if it is set, else start a cluster on this machine."""
    connect_timeout_s: PositiveFloat = 20.0
    """Maximum wait for an answer of a running cluster, in seconds; also for `raysys submit`."""
    num_cpus: PositiveInt | None = None
    """Logical CPUs of a cluster that is started on this machine. Null: all of the machine's."""
    object_store_megabytes: PositiveInt | None = None
    """Object store of a cluster that is started on this machine, in MiB. Null: Ray's default."""


class Config(Section):
    """All settings, in the order of the data."""

    name: RunName = "siglip"
    """Name of the run and of all its artifacts."""
    root: Annotated[str, UriPath()] = ".raysys"
    """Folder of all artifacts: a local path or a URI (`s3://`, `gs://`)."""
    catalog: Annotated[
        DrawnCatalog | TableCatalog | FolderCatalog | WebDatasetCatalog, Field(discriminator="kind")
    ] = DrawnCatalog()
    pack: PackConfig = PackConfig()
    encoder: EncoderConfig = EncoderConfig()
    stream: StreamConfig = StreamConfig()
    train: TrainConfig = TrainConfig()
    embed: EmbedConfig = EmbedConfig()
    projection: ProjectionConfig = ProjectionConfig()
    index: IndexConfig = IndexConfig()
    frontier: FrontierConfig = FrontierConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    store: StoreConfig = StoreConfig()
    serve: ServeConfig = ServeConfig()
    tracking: TrackingConfig = TrackingConfig()
    storage: StorageConfig = StorageConfig()
    hub: HubConfig = HubConfig()
    ray: RayConfig = RayConfig()

    @model_validator(mode="after")
    def _other_vectors_have_places_of_their_own(self) -> Config:
        own = (self.name, f"{self.name}-pca")
        if self.embed.to in own:
            raise ValueError(
                f"embed.to: '{self.embed.to}' holds the vectors of the trained encoder; choose another name"
            )
        if self.index.embeddings in own:
            raise ValueError(
                f"index.embeddings: '{self.index.embeddings}' has the vectors of the trained encoder, which "
                "are indexed by default; set it to null, or to a set of `raysys embed --to`"
            )
        return self
