"""The complete configuration: every setting of raysys with its type, default and rules.

Defaults are defined only here and in the modules of the larger sections: catalog.py, pack.py, train.py and
evaluate.py. Sections follow the order of the data, and a stage receives its own section. The docstring below
a field is its documentation in `raysys config --schema` and `raysys config --reference`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

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
from raysys.config.evaluate import (
    CHANCE,
    SYSTEMS,
    AttributePrecisionConfig,
    BaselineConfig,
    EvaluateConfig,
    RecordedLog,
    SimulatedLog,
)
from raysys.config.pack import (
    AttributeSplit,
    ColumnSplit,
    DuplicatesConfig,
    GroupSplit,
    PackConfig,
    TimeSplit,
    moment_key,
)
from raysys.config.section import SPLITS, Fraction, HubIdOrPath, Section, SplitName, SplitNames, UriPath
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


RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


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


class ProjectionConfig(Section):
    """Reduction of the embeddings by principal components, fitted on the training split."""

    dimensions: PositiveInt | None = 128
    """Number of principal components. Null: serve the encoder's own dimensions."""
    whiten: bool = False
    """Divide each component by its standard deviation, so that all have the same weight in the cosine."""


class EmbedConfig(Section):
    """`raysys embed`: embed the catalogue's photos."""

    splits: SplitNames = ("train", "val", "test")
    """Splits to embed."""
    actors: PositiveInt = 1
    """Number of Ray actors that run the encoder; one GPU each with `embed.use_gpu`. On a CPU they share all
    cores, so more than one for each machine only takes more memory."""
    use_gpu: bool = False
    """Embed on GPUs."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Floating-point format of the encoder. `auto`: bf16 on a GPU, fp32 on a CPU."""
    compile: bool = True
    """On a GPU, compile the encoder with torch.compile for batches of `embed.batch_size`."""
    batch_size: PositiveInt = 64
    """Photos per forward pass. On a GPU every batch has this many, filled across blocks."""
    encoder: Annotated[str | None, HubIdOrPath()] = None
    """`raysys embed --encoder`: instead of the trained one an EncoderBundle (path or URI), or any Hugging
    Face image model (hub id or local path), for example as a baseline. Null: the trained one."""
    vectors: Annotated[str | None, UriPath()] = None
    """`raysys embed --vectors`: instead of embedding, take vectors that were made elsewhere: a Parquet file
    or a folder of them with `item_id` and `embedding`, or an EmbeddingSet (path or URI)."""
    to: RunName | None = None
    """`raysys embed --to`: the EmbeddingSet of `embed.encoder` or `embed.vectors` is `embeddings/<to>`."""
    parity_items: NonNegativeInt = 32
    """Items of the catalogue whose vectors are compared before the others are embedded: as training (without
    augmentation), this command and the service compute them. 0: none."""
    parity_tolerance: PositiveFloat = 0.01
    """Largest accepted difference (1 - cosine) from the service. Measured on photos: 1e-4 for bf16, 1e-3 to
    4e-3 for the scaled decoding of training."""
    reuse: Annotated[str, UriPath(keywords=("published", "none"))] = "published"
    """Whose vectors are carried over for items with an unchanged photo and title: `published`, the set that
    is replaced, if it has the same embedding space and precision; `none`; or another EmbeddingSet: a local
    path or a URI."""
    price_per_device_hour: NonNegativeFloat | None = None
    """Price of an hour of the hardware that an encoder holds, in any currency: the summary and the manifest
    state the cost of a million photos. Null: they do not."""

    @model_validator(mode="after")
    def _other_vectors_have_a_place(self) -> EmbedConfig:
        if self.encoder is not None and self.vectors is not None:
            raise ValueError("encoder and vectors are two sources of one set; set one of them")
        if self.encoder is None and self.vectors is None and self.to is not None:
            raise ValueError(
                "to is the place of other vectors than the trained encoder's; set embed.encoder (--encoder "
                "URI_OR_HUB_ID) or embed.vectors (--vectors URI), too"
            )
        if (self.encoder is not None or self.vectors is not None) and self.to is None:
            source = "vectors" if self.encoder is None else "encoder"
            raise ValueError(f"{source} needs a name for the set; set embed.to (--to NAME), too")
        return self

    @property
    def chosen_precision(self) -> Literal["fp32", "bf16"]:
        """`precision`, or the one of the device."""
        if self.precision == "auto":
            return "bf16" if self.use_gpu else "fp32"
        return self.precision

    @property
    def is_compiled(self) -> bool:
        """Whether the encoder is compiled."""
        return self.use_gpu and self.compile


class BudgetConfig(Section):
    """What the index may cost. `index.kind: auto` takes the kind that needs the least memory and keeps it."""

    memory_bytes: PositiveInt | None = None
    """Maximum memory of all vectors in the opened index, in bytes. Null: no limit."""
    bytes_per_vector: PositiveFloat | None = None
    """The same per vector; set one of the two."""
    recall_at_10: Fraction | None = None
    """Recall@10 that is promised, instead of `index.min_recall`."""
    latency_ms: PositiveFloat = 5.0
    """Maximum p99 of one search on one thread, in ms. The search parameters of any kind are raised towards
    `index.min_recall` only within it."""

    @model_validator(mode="after")
    def _one_limit(self) -> BudgetConfig:
        if self.memory_bytes is not None and self.bytes_per_vector is not None:
            raise ValueError("memory_bytes and bytes_per_vector limit the same; set one of them")
        return self


class IndexConfig(Section):
    """`raysys index`: the FAISS nearest-neighbour index."""

    embeddings: RunName | None = None
    """`raysys index --embeddings`: index the EmbeddingSet `embeddings/<this>` (of `raysys embed --to`) as
    `indexes/<this>`; `raysys serve` with the same setting serves it. Null: that of the trained encoder, as
    `indexes/<name>`."""
    kind: Literal["auto", "exact", "ivf_sq8", "ivf_pq", "ivf_rabitq", "hnsw", "hnsw_sq8"] = "auto"
    """`auto`: chosen by `index.budget` and measurements on a sample. `exact` compares a query with every
    vector. `ivf_sq8` searches the nearest lists of 8-bit vectors; `ivf_pq` and `ivf_rabitq` search lists of
    shorter codes and re-rank the best. `hnsw` searches a graph (Malkov & Yashunin 2016), `hnsw_sq8` one of
    8-bit vectors."""
    budget: BudgetConfig = BudgetConfig()
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where FAISS trains and fills the index and compares queries with all vectors. `gpu`: the first NVIDIA
    GPU of the machine that runs the command, with `raysys[gpu]`. `auto`: the GPU if there is one, else the
    CPU. The files can be searched without a GPU."""
    num_lists: PositiveInt | None = None
    """IVF: number of lists (nlist). Null: the power of two nearest to 4 times the root of the items."""
    nprobe: PositiveInt = 32
    """IVF: lists that a search visits."""
    pq_subquantizers: PositiveInt | None = None
    """`ivf_pq`: sub-vectors of 4 bits each (M); must divide the dimensions. Null: a quarter of them."""
    rabitq_bits: Annotated[int, Field(ge=1, le=8)] = 1
    """`ivf_rabitq`: bits per dimension."""
    refine: Literal["sq4", "sq6", "sq8", "fp16"] | None = None
    """`ivf_pq` and `ivf_rabitq`: encoding of the copies that re-rank. Null: `sq8`; `auto` also tries shorter
    ones."""
    k_factor: PositiveInt = 10
    """`ivf_pq` and `ivf_rabitq`: candidates that are re-ranked, as a multiple of k."""
    hnsw_m: PositiveInt = 32
    """HNSW: links per node (M)."""
    ef_construction: PositiveInt = 200
    """HNSW: candidates while building (efConstruction)."""
    ef_search: PositiveInt = 128
    """HNSW: candidates while searching (efSearch)."""
    shards: PositiveInt | None = None
    """Files that the items are spread over by the hash of their id; on CPUs, Ray tasks fill more than one.
    Null: one for every 2 GiB of float32 vectors."""
    recall_queries: PositiveInt = 1000
    """Number of queries that measure recall against exact search."""
    recall_k: PositiveInt = 10
    """Number of neighbours in that measurement."""
    min_recall: Fraction = 0.9
    """The recall that is promised, without and with filters. Below it, search parameters are raised within
    `index.budget.latency_ms`; if that is not enough, the build fails and publishes nothing."""

    @property
    def promised_recall(self) -> float:
        """The lowest recall with which an index is published."""
        return self.min_recall if self.budget.recall_at_10 is None else self.budget.recall_at_10


class FrontierConfig(Section):
    """`raysys index --frontier`: size and latency of the vectors against quality."""

    dimensions: tuple[Annotated[int, Field(ge=2)], ...] | None = None
    """Numbers of dimensions to compare with all of them, by one PCA. Null: the powers of two from 32."""
    max_items: Annotated[int, Field(ge=2)] = 100_000
    """Recall and latency are measured among at most so many items, a random sample of the catalogue."""


class ServeConfig(Section):
    """`raysys serve`: the HTTP service."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    encoder_replicas: PositiveInt = 1
    """Replicas of the encoder deployment."""
    search_replicas: PositiveInt = 1
    """Replicas of the search deployment; each one opens the complete index, and those of a node share its
    pages in memory."""
    gateway_replicas: PositiveInt = 1
    """Replicas of the HTTP gateway."""
    use_gpu: bool = False
    """Encode queries on a GPU, one per encoder replica."""
    search_on_gpu: bool = False
    """Search without a filter on a GPU, one per search replica, in an index of kind `exact` or `ivf_sq8`. The
    CPU searches with filters."""
    max_batch_size: PositiveInt = 16
    """Maximum number of requests that are encoded together."""
    batch_wait_ms: NonNegativeFloat = 5.0
    """Maximum time that a request waits for others to join its batch, in milliseconds."""
    default_k: PositiveInt = 10
    """Number of results if a request does not set `k`."""
    max_k: PositiveInt = 100
    """Maximum `k` of a request."""
    max_image_megabytes: PositiveFloat = 10.0
    """Maximum size of an uploaded photo, in MB."""
    image_url: Annotated[str, Field(pattern=r"\{item_id\}")] | None = None
    """Template of the photos' public addresses, for example `https://img.example.com/{item_id}.jpg`; the
    percent-encoded id replaces `{item_id}`. Null: serve the photos from the shards."""
    example_queries: Annotated[
        tuple[Annotated[str, Field(pattern=r"\S", max_length=60)], ...], Field(max_length=12)
    ] = ()
    """Texts that the page offers as examples: frequent words of your titles, in each of their languages."""


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
