"""The complete configuration: every setting of raysys with its type, default and rules.

Defaults are defined only here and in the modules of some sections (catalog.py, pack.py, train.py, embed.py,
index.py, evaluate.py, store.py). Sections follow the order of the data, and a stage receives its own section.
The docstring below a field is its documentation in `raysys config --schema` and `raysys config --reference`.
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
from raysys.config.section import (
    SPLITS,
    ChosenPrecision,
    Fraction,
    HubIdOrPath,
    Precision,
    RunName,
    Section,
    SplitName,
    UriPath,
    chosen_precision,
)
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


class ServeConfig(Section):
    """`raysys serve`: the HTTP service."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    """Port to listen on."""
    ingress: Literal["haproxy", "python"] = "haproxy"
    """What receives requests on a cluster that `raysys serve` starts: HAProxy, or Ray Serve's Python proxy. A
    cluster that is already running has its own setting."""
    encoder_replicas: PositiveInt = 1
    """Replicas of the encoder deployment."""
    search_replicas: PositiveInt | None = None
    """Replicas of each search deployment; those of a node share the pages of the index in memory. Null: every
    gateway searches the complete index itself, in half the time; with `search_on_gpu` or several
    `search_partitions`, one."""
    search_partitions: PositiveInt = 1
    """Search deployments among which the files of the index are divided (`index.shards`, at least as many),
    for an index that is too large for a node. Each query is sent to all of them."""
    gateway_replicas: PositiveInt = 1
    """Replicas of the HTTP gateway."""
    max_encoder_replicas: PositiveInt | None = None
    """Replicas of the encoder while there is much to do: Ray Serve adds one when each has had more than half
    of `max_encoder_requests` for 30 s, and removes it after ten minutes with less. Null: never more."""
    max_search_replicas: PositiveInt | None = None
    """The same for each search deployment, when each replica has more than `search_threads` searches."""
    max_gateway_replicas: PositiveInt | None = None
    """The same for the gateway, when each is at work for more than 0.6 of the time."""
    use_gpu: bool = False
    """Encode queries on a GPU, one per encoder replica."""
    precision: Precision = "auto"
    """Floating-point format in which queries are encoded. `auto`: bf16 on a GPU, fp32 on a CPU."""
    compile: bool = False
    """On a GPU, compile the encoder with torch.compile. Each start and each other encoder then takes a minute
    longer, and a batch 6 to 23 % less."""
    search_on_gpu: bool = False
    """Search without a filter on a GPU, one per search replica, in an index of kind `exact` or `ivf_sq8`. The
    CPU searches with filters."""
    max_requests: PositiveInt = 64
    """Requests that a gateway replica works on at a time; more are refused at once (503, `overloaded`)."""
    max_item_queries: PositiveInt = 32
    """Of these, queries by item. Each of them waits for all others: more are answered later, and fewer refuse
    short bursts. While a fifth of all requests is refused, a quarter of them is worked on at a time."""
    max_encoder_requests: PositiveInt | None = None
    """Requests with photos or texts that are worked on at a time, for each encoder replica, once their bodies
    have arrived; more are refused at once. Null: 4, with `use_gpu` two batches of `max_batch_size`. More are
    answered later, and fewer refuse short bursts, as with `max_item_queries`."""
    search_threads: PositiveInt = 4
    """Searches that a replica with the index runs at a time; up to `queue_length` wait for a thread. Those of
    at most a millisecond of CPU time, without a filter, need none."""
    queue_length: PositiveInt = 256
    """Inputs for the encoder that may wait in a gateway replica for a free replica, and searches and photos
    that may wait for a thread; more are refused at once. Each input of /v1/embed counts."""
    degraded_search_effort: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of `nprobe` or `ef_search` that a search has if it would wait for a thread. Its response has the
    header X-Degraded. Null: every search has its full effort."""
    max_batch_size: PositiveInt = 16
    """Maximum number of requests that are encoded together."""
    batch_wait_ms: NonNegativeFloat = 0.0
    """Maximum time that a request waits for others to join its batch, in milliseconds. Those that come while
    a batch is encoded are the next one in any case."""
    default_k: PositiveInt = 10
    """Number of results if a request does not set `k`."""
    max_k: PositiveInt = 100
    """Maximum `k` of a request."""
    max_image_megabytes: PositiveFloat = 10.0
    """Maximum size of an uploaded photo, in MB."""
    changes_poll_ms: PositiveFloat = 100.0
    """How often a searcher looks for changes of items, in milliseconds."""
    request_timeout_s: PositiveFloat = 5.0
    """Maximum time for the answer to a query after its body has arrived, in seconds (504,
    `deadline_exceeded`); a request may set less in the header X-Request-Timeout-Ms. Changes of items have
    `store.timeout_s`."""
    decode_threads: PositiveInt = 4
    """Threads of a gateway replica that decode photos."""
    vector_cache_items: NonNegativeInt = 10_000
    """Photos whose vectors a gateway replica keeps, so that an equal photo is not embedded again. 0: none."""
    recall_sample: Annotated[float, Field(ge=0, le=1)] = 0.001
    """Share of the searches that are compared with an exact search in the background, for `raysys_recall`."""
    body_timeout_s: PositiveFloat = 30.0
    """Maximum time in which the head of a request must arrive, and then its body, in seconds."""
    image_url: Annotated[str, Field(pattern=r"\{item_id\}")] | None = None
    """Template of the photos' public addresses, for example `https://img.example.com/{item_id}.jpg`; the
    percent-encoded id replaces `{item_id}`. Null: serve the photos from the shards, and keep those of
    changed items under `root`."""
    example_queries: Annotated[
        tuple[Annotated[str, Field(pattern=r"\S", max_length=60)], ...], Field(max_length=12)
    ] = ()
    """Texts that the page offers as examples: frequent words of your titles, in each of their languages."""
    tokens_file: Annotated[str, UriPath()] | None = None
    """YAML or JSON list of the bearer tokens (name, sha256, scopes); `raysys serve CONFIG --new-token NAME`
    prints an entry. Required unless `host` is a loopback address or `allow_anonymous` is set."""
    allow_anonymous: Literal["read", "write", "admin"] | None = None
    """Scope of requests without a token, for example behind your own gateway. Null: `admin` on a loopback
    address without a `tokens_file`, else none."""
    cors_origins: tuple[Annotated[str, Field(pattern=r"^https?://[^/*\s]+$")], ...] = ()
    """Origins of other sites whose scripts may call the API, for example `https://shop.example.com`."""
    trace_sample: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the requests that are traced with OpenTelemetry; those with a `traceparent` header follow its
    flag. 0: no traces. The collector is that of OTEL_EXPORTER_OTLP_ENDPOINT."""
    access_log: Literal["none", "json"] = "none"
    """`json`: one line per request on stderr of the gateway replicas, without queries, bodies and tokens."""

    @property
    def device(self) -> str:
        """Where queries are encoded, for PyTorch."""
        return "cuda" if self.use_gpu else "cpu"

    @property
    def chosen_precision(self) -> ChosenPrecision:
        """`precision`, or the one of the device."""
        return chosen_precision(self.precision, is_on_gpu=self.use_gpu)

    @property
    def is_compiled(self) -> bool:
        """Whether the encoder is compiled."""
        return self.use_gpu and self.compile

    @model_validator(mode="after")
    def _may_only_grow(self) -> ServeConfig:
        for name in ("encoder", "search", "gateway"):
            least, most = getattr(self, f"{name}_replicas") or 1, getattr(self, f"max_{name}_replicas")
            if most is not None and most < least:
                raise ValueError(f"max_{name}_replicas is {most}, less than {name}_replicas ({least})")
        return self


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
