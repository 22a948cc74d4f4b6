"""Every setting of raysys: its name, type, default and rule. There is no other place for a default.

Sections stand in the order of the data. A stage receives its own section; the docstring under a
field is what `raysys config --schema` prints.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Literal, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
AttributeType = Literal["text", "integer", "number", "boolean"]
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
TableFormat = Literal["csv", "tsv", "parquet", "jsonl"]
HostName = Annotated[str, Field(pattern=r"^\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]


def _as_text(value: object) -> object:
    """YAML reads a bare 2026-04-01 as a date."""
    return value.isoformat() if isinstance(value, datetime.date) else value


Moment = Annotated[str | float, BeforeValidator(_as_text)]


def moment_key(moment: str | float) -> tuple[float, str]:
    """What moments sort by: numbers as numbers, dates as the ISO text that they are."""
    return (0.0, moment) if isinstance(moment, str) else (float(moment), "")


class Section(BaseModel):
    """A part of the configuration: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class DrawnCatalog(Section):
    """A catalogue drawn by raysys itself, for the demo and for tests."""

    kind: Literal["drawn"] = "drawn"
    num_items: Annotated[int, Field(ge=50, le=10_000_000)] = 3000
    """How many listings to draw."""
    size_px: Annotated[int, Field(ge=32, le=1024)] = 96
    """Side of the square photos."""
    seed: NonNegativeInt = 7
    """The same seed draws the same catalogue, byte for byte."""


class Columns(Section):
    """Which column of a table holds what."""

    item_id: str = "item_id"
    title: str = "title"
    image: str = "image"
    """The photo: a path relative to `catalog.images`, an absolute path, a URI (`s3://`, `gs://`, `https://`),
    or its bytes (Parquet: binary, or a struct of `bytes` and `path` as Hugging Face datasets write it)."""
    attributes: dict[str, AttributeType] = {}
    """Columns kept as attributes (filters, splits, evaluation) and their types."""


class FolderColumns(Columns):
    """Which column of an image folder's metadata holds what."""

    image: str = "file_name"
    """The photo: a path relative to the metadata file."""


class TableCatalog(Section):
    """Your own catalogue: one row a listing, in CSV, TSV, Parquet or JSON Lines."""

    kind: Literal["table"] = "table"
    path: str
    """A file, a glob (`items-*.parquet`) or a folder of files, local or at a URI. Text is UTF-8; CSV and TSV
    have a header."""
    format: TableFormat | None = None
    """Null: by the name (.csv, .tsv, .parquet, .jsonl; also .gz behind a text format)."""
    images: str | None = None
    """Folder that image paths are relative to; by default the folder of the table."""
    columns: Columns = Columns()


class FolderCatalog(Section):
    """An image folder as Hugging Face datasets load it: photos, and a metadata table beside them."""

    kind: Literal["folder"] = "folder"
    path: str
    """The folder, local or at a URI. It, or each of its sub-folders `train`, `val`, `test`, holds
    metadata.csv, metadata.jsonl or metadata.parquet."""
    columns: FolderColumns = FolderColumns()


class ColumnSplit(Section):
    """The catalogue says in a column which split a row belongs to."""

    kind: Literal["column"] = "column"
    column: str = "split"
    """Holds `train`, `val` or `test`. An image folder without this column: the sub-folder."""


class AttributeSplit(Section):
    """Whole groups go to one split (no seller in two), chosen by a hash that later growth keeps."""

    kind: Literal["attribute"] = "attribute"
    attribute: str = "seller"
    """Rows with the same value stay together; a row without one is a group of its own."""
    val_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.2
    seed: NonNegativeInt = 7


class GroupSplit(Section):
    """Listings that show the same thing go to one split together (see `pack.duplicates`)."""

    kind: Literal["group"] = "group"
    val_fraction: Fraction = 0.1
    test_fraction: Fraction = 0.2
    seed: NonNegativeInt = 7


class TimeSplit(Section):
    """The newest listings test, those before them validate, and the rest trains."""

    kind: Literal["time"] = "time"
    attribute: str = "listed_at"
    """Dates as ISO text (they sort as text), or numbers; a row without one trains."""
    val_from: Moment
    """From here on rows validate."""
    test_from: Moment
    """From here on rows test."""

    @model_validator(mode="after")
    def _in_order(self) -> TimeSplit:
        if isinstance(self.val_from, str) != isinstance(self.test_from, str):
            raise ValueError("val_from and test_from should both be text or both be numbers")
        if moment_key(self.val_from) > moment_key(self.test_from):
            raise ValueError(f"val_from {self.val_from} is later than test_from {self.test_from}")
        return self


class DuplicatesConfig(Section):
    """What makes listings one group, beside identical photos."""

    photo_bits: Annotated[int, Field(ge=0, le=12)] | None = 4
    """At most this many of the 64 bits of their perceptual hashes differ in near photos; null: never."""
    seller: str | None = "seller"
    """The attribute that names the seller: the same title of the same seller is one group; null: never."""


class PackConfig(Section):
    """From a catalogue to WebDataset shards."""

    split: Annotated[ColumnSplit | AttributeSplit | GroupSplit | TimeSplit, Field(discriminator="kind")] = (
        AttributeSplit()
    )
    duplicates: DuplicatesConfig = DuplicatesConfig()
    parent: str | None = None
    """The `shards` folder of an earlier root: only what changed since is packed, the rest stays there."""
    shard_megabytes: PositiveInt = 256
    """A shard ends before it is larger than this (MiB), or at `items_per_shard`."""
    items_per_shard: PositiveInt = 4096
    max_bad_fraction: Fraction = 0.05
    """Refused items above this share of the catalogue stop the stage."""
    max_megapixels: PositiveFloat = 64.0
    """Photos with more pixels are refused before they are decoded."""
    max_photo_megabytes: PositiveFloat = 50.0
    """Larger files are refused; of one on the network no more than this is read."""
    max_side_px: PositiveInt | None = None
    """Larger photos are made smaller and encoded anew; null keeps them as they are."""
    allowed_hosts: tuple[HostName, ...] = ()
    """Where `https://` photos may come from: `img.example.com`, or `.example.com` for all below it."""
    fetch_timeout_s: PositiveFloat = 30.0
    """How long a host may take for one photo; it is asked three times."""


class TinyConfig(Section):
    """Size of the small SigLIP that `encoder.start: tiny` builds: no network, no weights."""

    image_size_px: PositiveInt = 64
    patch_size_px: PositiveInt = 8
    hidden_size: PositiveInt = 128
    mlp_ratio: PositiveInt = 2
    num_layers: PositiveInt = 6
    num_heads: PositiveInt = 4
    text_num_layers: PositiveInt = 2
    vocab_size: PositiveInt = 2000
    """At most this many word pieces are learnt from the training titles."""
    max_length: PositiveInt = 24
    """Word pieces a title is cut or padded to."""
    logit_bias: float = -4.0
    """Near the log-odds of a right pair in a small batch; SigLIP's -10 is for 32,768 pairs."""

    @model_validator(mode="after")
    def _divisible(self) -> TinyConfig:
        if self.image_size_px % self.patch_size_px:
            raise ValueError(f"image_size_px {self.image_size_px} is no multiple of {self.patch_size_px=}")
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size {self.hidden_size} is no multiple of {self.num_heads=}")
        return self


class EncoderConfig(Section):
    """Where the model starts, and how photos and titles are prepared for it."""

    start: str = "tiny"
    """A hub id (`google/siglip-base-patch16-256-multilingual`), a local path, or `tiny`."""
    revision: str | None = None
    """Branch, tag or commit of the hub repository."""
    tiny: TinyConfig = TinyConfig()
    lower_case: bool | None = None
    """Whether titles are lower-cased; null: as the checkpoint wants it, as SigLIP and
    SigLIP 2 do."""
    seed: NonNegativeInt = 7


class StreamConfig(Section):
    """How shards become batches."""

    shuffle_window_shards: PositiveInt = 4
    """Samples are shuffled within this many shards at a time; shards are shuffled over the epoch."""
    decode_concurrency: PositiveInt = 2
    """Ray tasks that decode at the same time."""
    read_concurrency: PositiveInt = 1
    """Windows of shards that are read ahead at the same time."""
    block_megabytes: PositiveInt = 8
    """Compressed photos in a block: a block decodes to some ten times this."""
    object_store_megabytes: PositiveInt | None = None
    """Ray Data holds back reading while its blocks fill this; null: its own share of the object store."""
    scaled_decoding: bool = True
    """For training, JPEGs larger than needed are decoded at 1/2, 1/4 or 1/8 of their size."""
    max_bad_fraction: Fraction = 0.01
    """Samples that cannot be used are skipped and counted; above this share of an epoch the stage stops."""


class AugmentConfig(Section):
    """Random changes to training photos, drawn from (seed, epoch, item)."""

    crop_min_area: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """A random crop covers at least this share of the photo; 1 leaves it whole."""
    flip_probability: Fraction = 0.5
    rotate_degrees: NonNegativeFloat = 0.0
    """Photos are turned by up to this, either way."""
    brightness: NonNegativeFloat = 0.2
    """Pixels are multiplied by 1 +- this."""
    contrast: NonNegativeFloat = 0.0
    """Distances from the photo's mean grey are multiplied by 1 +- this."""
    erase_probability: Fraction = 0.0
    """How often a random rectangle is painted over (random erasing, Zhong et al. 2017)."""


class FalseNegativesConfig(Section):
    """Captions of other listings that fit a photo too, and that the published loss takes for wrong."""

    equal_titles: Literal["merged", "masked", "negative"] = "merged"
    """Other listings with the same title: one caption of them all, left out, or negatives as published."""
    same_group: Literal["masked", "positive", "negative"] = "masked"
    """Captions of listings of the same thing: left out, positives, or negatives as published."""
    similar_photos: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Listings whose photos have at least this cosine to each other, by the model as it is then."""
    similar_photos_are: Literal["masked", "positive"] = "masked"


class LoraConfig(Section):
    """Low-rank updates of frozen matrices (Hu et al. 2021), by peft; merged into the weights in the end."""

    rank: PositiveInt = 16
    alpha: PositiveInt = 32
    """The update counts `alpha / rank`."""
    modules: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the linear layers that get one, in both towers."""


class RobustConfig(Section):
    """How `train.method` keeps what the start already knew."""

    distil_weight: PositiveFloat = 1.0
    """`distil`: weight of the mean squared distance to the start's vectors, of photos and of titles."""
    top_layers: PositiveInt = 2
    """`top_layers`: so many layers of each tower, and what is above them, are trained."""
    interpolation_steps: Annotated[int, Field(ge=2, le=101)] = 11
    """`wise_ft`: points between the start (0) and the fine-tuned weights (1) that are measured."""
    guard: str = "drawn"
    """What the model should not forget, out of the domain it is tuned for: `drawn` (a drawn catalogue), or
    the URI of a ShardSet. R@5 from photo to title is measured on it."""
    guard_items: PositiveInt = 256
    max_guard_drop: Fraction = 0.05
    """The guard's figure may fall by this share of the start's; points that lose more are not chosen."""


class ValidationConfig(Section):
    """What is measured of a checkpoint while training goes on, in a Ray task of its own."""

    items: NonNegativeInt = 512
    """At most this many validation pairs, among them those of the log; 0 measures nothing, and the newest
    checkpoint is the best."""
    score: Literal["r@1", "r@5", "r@10", "ndcg@5"] | None = None
    """What makes a checkpoint the best; null: ndcg@5 on the log of `evaluate.log` if its items are in the
    validation split, else r@5."""
    patience: PositiveInt | None = None
    """Training ends early after so many measurements without a better score; null: never."""
    num_gpus: NonNegativeFloat = 0.0
    """GPUs of the task, beside those of the workers; 0 measures on a CPU."""
    timeout_s: PositiveFloat = 3600.0
    """After this a measurement is given up; training goes on."""


class TrainConfig(Section):
    """Fine-tuning with the sigmoid loss."""

    workers: PositiveInt = 1
    min_workers: PositiveInt | None = None
    """With fewer nodes the run goes on with as few workers as this, in the same global batch, and grows back
    to `workers`; null: it waits for all."""
    use_gpu: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    method: Literal["full", "distil", "wise_ft", "top_layers"] = "wise_ft"
    """`full`: all weights, as published. `wise_ft`: the same, then the best of the way back to the start
    (Wortsman et al. 2021). `distil`: held near the start's vectors. `top_layers`: the cheap one."""
    robust: RobustConfig = RobustConfig()
    lora: LoraConfig | None = None
    """Train low-rank updates instead of the towers' weights."""
    parallel: Literal["ddp", "fsdp"] = "ddp"
    """`fsdp` (FSDP2) shards weights and optimiser state over the workers, for towers that fill a GPU."""
    compile: bool = False
    """Both towers by torch.compile; worth it on a GPU."""
    activation_checkpointing: bool = False
    """Layers are computed again in the backward pass: less memory, a third more work."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Measure and export an exponential moving average of the weights; null: the weights themselves."""
    epochs: PositiveFloat = 5.0
    """Passes over the training shards; may be a fraction. A finished run continues when it is raised."""
    batch_size: PositiveInt = 256
    """Image-title pairs in a step, over all workers."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` updates the image tower's matrices by Muon: for training from scratch."""
    learning_rate: PositiveFloat = 1.0e-5
    muon_learning_rate: PositiveFloat = 0.015
    scale_learning_rate: PositiveFloat | None = None
    """Of the loss's scale and bias; null: `learning_rate`."""
    max_logit_scale: PositiveFloat = 200.0
    """The loss's scale stays below this."""
    weight_decay: NonNegativeFloat = 1.0e-4
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    warmup_fraction: Fraction = 0.05
    """Share of the steps in which the learning rate rises linearly; then it follows a cosine to 0."""
    frozen_image_layers: NonNegativeInt | Literal["all"] = 0
    """The image tower's first so many layers, and what is below them, stay as they are; or all of it."""
    frozen_text_layers: NonNegativeInt | Literal["all"] = 0
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """A layer's learning rate is that of the next one above times this."""
    max_grad_norm: PositiveFloat = 1.0
    """The gradient's norm is cut to this."""
    micro_batch_size: PositiveInt | None = None
    """Pairs of a worker in the towers at a time; null: its whole share. The step stays the same."""
    on_out_of_memory: Literal["stop", "halve"] = "stop"
    """`halve`: start again from the last checkpoint with half the micro-batch, in the same global batch; each
    time is one of `max_failures`."""
    loss_exchange: Literal["ring", "gather"] = "ring"
    """How captions get to all workers: a block at a time, or all at once."""
    loss_tile_rows: PositiveInt = 1024
    """Images and captions that the loss compares at a time."""
    false_negatives: FalseNegativesConfig = FalseNegativesConfig()
    caption_weights: dict[str, PositiveFloat] = {}
    """Attributes that are captions beside the title, and their weight in the loss (the title's is 1)."""
    augment: AugmentConfig = AugmentConfig()
    log_every_steps: PositiveInt = 10
    checkpoint_every_epochs: PositiveFloat = 1.0
    """How often training state is kept, and measured on the validation split."""
    checkpoint_every_minutes: PositiveFloat | None = 15.0
    """State is also kept this long after it last was, unmeasured; null: never."""
    validation: ValidationConfig = ValidationConfig()
    on_config_change: Literal["refuse", "restart"] = "refuse"
    """What happens if a run of this name was trained with other settings or data: `restart` begins a new one
    beside it; nothing of the old one is lost."""
    collective_timeout_s: PositiveFloat = 600.0
    """A worker that keeps the others waiting longer is named, and the run restarts from its checkpoint."""
    max_failures: NonNegativeInt = 3
    """Restarts from the last checkpoint before the run gives up; preemptions do not count."""

    @model_validator(mode="after")
    def _divisible(self) -> TrainConfig:
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} is no multiple of {self.workers} workers")
        share = self.batch_size // self.workers
        if share % (self.micro_batch_size or share):
            raise ValueError(
                f"a worker's {share} pairs are no multiple of micro_batch_size {self.micro_batch_size}"
            )
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is more than workers {self.workers}")
        return self

    @property
    def is_elastic(self) -> bool:
        """Whether the run may go on with fewer workers than `workers`."""
        return self.min_workers is not None and self.min_workers < self.workers

    @model_validator(mode="after")
    def _one_way(self) -> TrainConfig:
        if self.lora is not None and self.method in ("distil", "top_layers"):
            raise ValueError(f"lora and method {self.method!r} both hold weights back; choose one")
        if self.lora is not None and self.optimizer == "muon":
            raise ValueError("lora trains thin matrices, for which muon is not made; set optimizer to adamw")
        if self.parallel == "fsdp" and self.optimizer == "muon":
            raise ValueError("fsdp cuts the matrices that muon needs whole; set optimizer to adamw")
        return self


class ProjectionConfig(Section):
    """Shorter vectors by principal components, fitted on the training split's embeddings."""

    dimensions: PositiveInt | None = 128
    """Components kept; null serves the encoder's own dimensions."""


class EmbedConfig(Section):
    """The whole catalogue through the image encoder."""

    splits: tuple[SplitName, ...] = ("train", "val", "test")
    actors: PositiveInt = 1
    use_gpu: bool = False
    precision: Literal["fp32", "bf16"] = "fp32"
    batch_size: PositiveInt = 64


class IndexConfig(Section):
    """The nearest-neighbour index."""

    kind: Literal["exact", "hnsw"] = "exact"
    """`exact` compares with every vector; `hnsw` walks a graph (Malkov & Yashunin 2016)."""
    hnsw_m: PositiveInt = 32
    ef_construction: PositiveInt = 200
    """efConstruction: candidates kept while building."""
    ef_search: PositiveInt = 128
    """efSearch: candidates kept while searching."""
    recall_queries: PositiveInt = 1000
    """Stored vectors used as queries to measure recall against exact search."""
    recall_k: PositiveInt = 10
    min_recall: Fraction = 0.9
    """A build that measures less is refused."""


class SimulatedLog(Section):
    """An interaction log drawn from known attributes, with position bias; marked simulated."""

    kind: Literal["simulated"] = "simulated"
    queries: PositiveInt = 1000
    shelf_size: Annotated[int, Field(ge=5, le=100)] = 12
    """Items shown for a query."""
    weights: dict[str, PositiveFloat] = {"kind": 0.6, "colour": 0.25, "pattern": 0.15}
    """What makes a neighbour attractive: latent or public attribute -> weight of its being equal."""
    position_bias: NonNegativeFloat = 0.35
    """The place p (from 0) is looked at with probability 1 / (1 + p) ** bias."""
    seed: NonNegativeInt = 11


class RecordedLog(Section):
    """Your own log: Parquet with impression_id, query_id, item_id, position, tapped."""

    kind: Literal["recorded"] = "recorded"
    path: str


class ShelfProtocol(Section):
    """The judgement without a log: precision of the first k neighbours on known attributes."""

    query_split: SplitName = "test"
    gallery_splits: tuple[SplitName, ...] = ("test", "val")
    where: dict[str, str] = {}
    """Only items with these attribute values are queries and gallery."""
    exclude_same: tuple[str, ...] = ("seller",)
    """A gallery item that shares one of these with the query is left out."""
    match: tuple[str, ...] = ("category_fine", "colour")
    """A neighbour is right if all of these are equal."""
    k: PositiveInt = 5


class EvaluateConfig(Section):
    """Proof that the shelf got better."""

    log: Annotated[SimulatedLog | RecordedLog, Field(discriminator="kind")] = SimulatedLog()
    shelf: ShelfProtocol | None = None
    splits: tuple[SplitName, ...] = ("test",)
    """Where queries and candidates of a simulated log come from: what neither trained the model nor chose
    among its checkpoints."""
    mobilenet: str = "google/mobilenet_v2_1.0_224"
    """The baseline of the published result: hub id or path."""
    bootstrap_samples: PositiveInt = 2000
    seed: NonNegativeInt = 13
    grid_queries: NonNegativeInt = 8
    """Queries shown with their neighbours before and after in the report."""


class ServeConfig(Section):
    """The HTTP service."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=1, le=65535)] = 8000
    encoder_replicas: PositiveInt = 1
    search_replicas: PositiveInt = 1
    gateway_replicas: PositiveInt = 1
    use_gpu: bool = False
    max_batch_size: PositiveInt = 16
    batch_wait_ms: NonNegativeFloat = 5.0
    """How long a request waits for others to be encoded with it."""
    default_k: PositiveInt = 10
    max_k: PositiveInt = 100
    max_image_megabytes: PositiveFloat = 10.0
    image_url: str | None = None
    """Where a shop shows photos, e.g. `https://img.example.com/{item_id}.jpg`; null: from the shards."""


class TrackingConfig(Section):
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = "auto"
    """`auto`: online when an API key is set, else offline."""
    project: str = "raysys"
    entity: str | None = None


class RayConfig(Section):
    """Where Ray runs."""

    address: str | None = None
    """A running cluster, or null: the one RAY_ADDRESS names, else one on this machine."""
    num_cpus: PositiveInt | None = None
    """Logical CPUs of a cluster started on this machine; null: as many as it has."""
    object_store_megabytes: PositiveInt | None = None


class Config(Section):
    """The whole path, in the order of the data."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")] = "siglip"
    """Names the run and everything made by it."""
    root: str = ".raysys"
    """Where artifacts go: a folder, `s3://` or `gs://`."""
    catalog: Annotated[DrawnCatalog | TableCatalog | FolderCatalog, Field(discriminator="kind")] = (
        DrawnCatalog()
    )
    pack: PackConfig = PackConfig()
    encoder: EncoderConfig = EncoderConfig()
    stream: StreamConfig = StreamConfig()
    train: TrainConfig = TrainConfig()
    embed: EmbedConfig = EmbedConfig()
    projection: ProjectionConfig = ProjectionConfig()
    index: IndexConfig = IndexConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    serve: ServeConfig = ServeConfig()
    tracking: TrackingConfig = TrackingConfig()
    ray: RayConfig = RayConfig()
