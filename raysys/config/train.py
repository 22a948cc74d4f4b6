"""Settings of `raysys train`: method, optimiser, loss, checkpoints and their validation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raysys.config.section import (
    ChangeableOnResume,
    Fraction,
    Section,
    SelectsAlpha,
    SelectsCheckpoint,
    UriPath,
)


class AugmentConfig(Section):
    """Random changes to training photos. They are a function of seed, epoch and item."""

    crop_min_area: Annotated[float, Field(gt=0.0, le=1.0)] = 0.5
    """A random crop keeps at least this share of the photo's area; 1 disables cropping."""
    flip_probability: Fraction = 0.5
    """Probability of a horizontal flip."""
    rotate_degrees: NonNegativeFloat = 0.0
    """Maximum rotation in either direction, in degrees."""
    brightness: NonNegativeFloat = 0.2
    """Pixels are multiplied by a random factor between 1 - brightness and 1 + brightness."""
    contrast: NonNegativeFloat = 0.0
    """Differences from the photo's mean grey are multiplied by a random factor between 1 - contrast and 1 +
    contrast."""
    erase_probability: Fraction = 0.0
    """Probability that a random rectangle is painted over (random erasing, Zhong et al. 2017)."""


class FalseNegativesConfig(Section):
    """Captions of other listings that match a photo, too. The published loss treats them as negatives."""

    equal_titles: Literal["merged", "masked", "negative"] = "merged"
    """Captions equal to the photo's own. `merged`: count them as one caption that is positive for all their
    photos. `masked`: ignore them. `negative`: as published."""
    same_group: Literal["masked", "positive", "negative"] = "masked"
    """Captions of listings in the photo's duplicate group. `masked`: ignore them. `positive`: positives.
    `negative`: as published."""
    photo_cosine_threshold: Annotated[float, Field(gt=0.0, le=1.0)] | None = None
    """Photos are similar if the current model's embeddings have at least this cosine. Null: do not compare
    photos."""
    similar_photos_are: Literal["masked", "positive"] = "masked"
    """Captions of similar photos: ignore them, or use them as positives."""


class LoraConfig(Section):
    """Low-rank updates of frozen matrices (LoRA, Hu et al. 2021), by peft; merged into the exported
    weights."""

    rank: PositiveInt = 16
    """Rank of an update."""
    alpha: PositiveInt = 32
    """An update is scaled by `alpha / rank`."""
    target_modules: tuple[str, ...] = ("q_proj", "v_proj")
    """Names of the linear layers to update, in both towers."""


class RobustConfig(Section):
    """Settings of `train.method` that limit what the model forgets of its start."""

    distil_weight: PositiveFloat = 1.0
    """`distil`: weight of the mean squared distance to the start's embeddings of photos and titles."""
    top_layers: PositiveInt = 2
    """`top_layers`: number of layers at the top of each tower that are trained, together with what follows
    them."""
    interpolation_steps: Annotated[int, Field(ge=2, le=101), SelectsAlpha()] = 11
    """`wise_ft`: number of evenly spaced interpolations (`alpha`) to measure, from the start (0) to the
    fine-tuned weights (1)."""
    retention_set: Annotated[str, UriPath(keywords=("drawn",)), SelectsAlpha()] = "drawn"
    """`wise_ft`: photo-title pairs from outside the training domain, on which the model must keep its R@5
    from photo to title: `drawn` (a synthetic catalogue), or the path or URI of a ShardSet."""
    retention_items: Annotated[PositiveInt, SelectsAlpha()] = 256
    """`wise_ft`: maximum number of pairs of the retention set to use."""
    max_retention_drop: Annotated[Fraction, SelectsAlpha()] = 0.05
    """`wise_ft`: maximum relative drop of R@5 on the retention set from the start's value. Interpolations
    that lose more cannot be chosen."""


class TeacherConfig(Section):
    """Distillation into the image tower from vectors of any other model, of the training items."""

    embeddings: Annotated[str, UriPath()]
    """Path or URI of an EmbeddingSet, or of plain Parquet, a file or a folder, with the columns `item_id` and
    `embedding` (lists of floats of any length)."""
    weight: PositiveFloat = 1.0
    """Weight of the sum of both terms in the loss; the sigmoid loss has weight 1."""
    regression_weight: NonNegativeFloat = 1.0
    """Weight of the mean of 1 - cosine between the teacher's vector and a linear function of the embedding,
    which is trained with the model and not exported."""
    relational_weight: NonNegativeFloat = 1.0
    """Weight of the mean squared difference between the cosines of two photos by the model and by the
    teacher, over all pairs of the global batch."""
    head_learning_rate: PositiveFloat = 1.0e-3
    """Peak learning rate of the linear function, which starts at random values."""

    @model_validator(mode="after")
    def _has_a_term(self) -> TeacherConfig:
        if self.regression_weight == self.relational_weight == 0.0:
            raise ValueError("regression_weight and relational_weight are both 0; raise one")
        return self


class ValidationConfig(Section):
    """Validation of checkpoints during training, by the workers on their own devices."""

    max_items: Annotated[NonNegativeInt, SelectsCheckpoint(), SelectsAlpha()] = 512
    """Maximum number of items of the validation split to use; items of the log come first. 0 disables
    validation: the newest checkpoint is then exported."""
    score: Annotated[Literal["r@1", "r@5", "r@10", "ndcg@5"] | None, SelectsCheckpoint(), SelectsAlpha()] = (
        None
    )
    """Metric that selects the best checkpoint. Null: ndcg@5 on `evaluate.log` if its items are in the
    validation split, else r@5."""
    patience: Annotated[PositiveInt | None, SelectsCheckpoint()] = None
    """Early stopping: end the run after this many validations without a better score. Null: never."""


class TrainConfig(Section):
    """`raysys train`: fine-tuning with the sigmoid loss of SigLIP."""

    workers: Annotated[PositiveInt, ChangeableOnResume()] = 1
    """Number of training workers; one GPU each with `train.use_gpu`."""
    min_workers: Annotated[PositiveInt | None, ChangeableOnResume()] = None
    """Elastic training: when nodes are lost, continue with at least this many workers and the same global
    batch, and grow back to `train.workers` later. Null: wait until all workers are available."""
    use_gpu: Annotated[bool, ChangeableOnResume()] = False
    """Train on GPUs."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Floating-point format of the towers' matrix products; weights and gradients are always float32. A GPU
    rounds the factors of float32 products to TF32."""
    method: Literal["full", "distil", "wise_ft", "top_layers"] = "wise_ft"
    """`full`: train all weights, as published. `wise_ft`: the same, then deliver the best interpolation
    between start and fine-tuned weights (Wortsman et al. 2021). `distil`: keep embeddings close to the
    start's while training. `top_layers`: train only the last layers, which is the cheapest."""
    robust: RobustConfig = RobustConfig()
    teacher: TeacherConfig | None = None
    """Also learn from vectors of another model. Null: from titles alone."""
    lora: LoraConfig | None = None
    """Train low-rank updates instead of the towers' weights. Null: train the weights."""
    parallel: Annotated[Literal["ddp", "fsdp"], ChangeableOnResume()] = "ddp"
    """`ddp` replicates the model on every worker. `fsdp` (FSDP2) shards weights and optimiser state, for
    models that do not fit a GPU otherwise."""
    compile: Annotated[bool, ChangeableOnResume()] = False
    """Compile both towers, and on a GPU the loss, with torch.compile. Recommended on GPUs."""
    patch_dropout: Annotated[float, Field(ge=0.0, lt=1.0), ChangeableOnResume()] = 0.0
    """Share of a photo's patches that the image tower does not see in training, others in every epoch (FLIP,
    Li et al. 2023): 0.5 saves half of the tower's time and memory. For pretraining; end it with 0."""
    activation_checkpointing: Annotated[Literal["none", "selective", "full"], ChangeableOnResume()] = "none"
    """What the backward pass computes again instead of reading it from memory. `selective`: all but matrix
    products and attention, with about half the memory of `none`. `full`: complete layers, with an eighth of
    the memory and about a third more computation."""
    ema_decay: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Validate and export an exponential moving average of the weights with this decay. Null: the weights
    themselves."""
    epochs: Annotated[PositiveFloat, ChangeableOnResume()] = 5.0
    """Passes over the training split; fractions are allowed. A finished run continues when this is raised."""
    batch_size: PositiveInt = 256
    """Photo-title pairs per step, over all workers; a multiple of `train.workers`."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` updates the matrices of the image tower by Muon, the rest by AdamW. Recommended for training
    from scratch."""
    learning_rate: PositiveFloat = 1.0e-5
    """Peak learning rate of AdamW."""
    muon_learning_rate: PositiveFloat = 0.015
    """Peak learning rate of Muon."""
    logit_scale_learning_rate: PositiveFloat | None = None
    """Peak learning rate of the loss's logit scale and bias. Null: `train.learning_rate`."""
    max_logit_scale: PositiveFloat = 200.0
    """The logit scale of the loss is clamped to this maximum."""
    weight_decay: NonNegativeFloat = 1.0e-4
    """Decoupled weight decay of all matrices."""
    beta2: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.95
    """Decay of AdamW's second moment."""
    warmup_fraction: Fraction = 0.05
    """Share of the steps with a linearly rising learning rate; afterwards it follows a cosine to 0."""
    frozen_image_layers: NonNegativeInt | Literal["all"] = 0
    """Number of layers at the bottom of the image tower to freeze, together with its embeddings; `all`
    freezes the complete tower."""
    frozen_text_layers: NonNegativeInt | Literal["all"] = 0
    """The same for the text tower."""
    layer_decay: Annotated[float, Field(gt=0.0, le=1.0)] = 1.0
    """Layer-wise learning rate decay: each layer's rate is this factor times the rate of the layer above. 1:
    equal rates."""
    max_grad_norm: PositiveFloat = 1.0
    """Gradients are clipped to this norm."""
    micro_batch_size: Annotated[PositiveInt | Literal["auto"] | None, ChangeableOnResume()] = "auto"
    """Pairs that a worker passes through the towers at a time. The update is the same; lower it to save
    memory. `auto`: on a GPU the most that fit, measured when the run starts; on a CPU as null. Null: the
    worker's complete share of the batch."""
    on_out_of_memory: Annotated[Literal["stop", "halve"], ChangeableOnResume()] = "stop"
    """`halve`: restart from the last checkpoint with half the micro-batch and the same global batch; later
    starts of the run keep it. Each restart counts towards `train.max_failures`."""
    loss_tile_rows: Annotated[PositiveInt, ChangeableOnResume()] = 1024
    """Photos and captions per tile of the loss. Memory grows with its square."""
    false_negatives: FalseNegativesConfig = FalseNegativesConfig()
    caption_weights: dict[str, PositiveFloat] = {}
    """Attributes to use as captions in addition to the title, with their weights in the loss. The title's
    weight is 1."""
    augment: AugmentConfig = AugmentConfig()
    log_every_steps: Annotated[PositiveInt, ChangeableOnResume()] = 10
    """Steps between two logged metrics."""
    checkpoint_every_epochs: Annotated[PositiveFloat, ChangeableOnResume()] = 1.0
    """Epochs between two validated checkpoints; fractions are allowed."""
    checkpoint_every_minutes: Annotated[PositiveFloat | None, ChangeableOnResume()] = 15.0
    """Save a checkpoint without validation if the last one is older than this. Null: never."""
    validation: Annotated[ValidationConfig, ChangeableOnResume()] = ValidationConfig()
    on_config_change: Annotated[Literal["refuse", "restart"], ChangeableOnResume()] = "refuse"
    """What to do if a run of this name was trained with other settings or data. `refuse`: stop with the
    differences. `restart`: start a new run beside it; the old one is not deleted."""
    collective_timeout_s: Annotated[PositiveFloat, ChangeableOnResume()] = 600.0
    """If a worker blocks the others for more seconds than this, the run names it and restarts from its last
    checkpoint."""
    max_failures: Annotated[NonNegativeInt, ChangeableOnResume()] = 3
    """Restarts from the last checkpoint before the run fails. Preemptions do not count."""

    @model_validator(mode="after")
    def _divisible(self) -> TrainConfig:
        if self.batch_size % self.workers:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of workers {self.workers}")
        share = self.batch_size // self.workers
        if isinstance(self.micro_batch_size, int) and share % self.micro_batch_size:
            raise ValueError(
                f"a worker's share of {share} pairs is not a multiple of micro_batch_size "
                f"{self.micro_batch_size}"
            )
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers {self.min_workers} is greater than workers {self.workers}")
        return self

    @model_validator(mode="after")
    def _compatible(self) -> TrainConfig:
        if self.lora is not None and self.method in ("distil", "top_layers"):
            raise ValueError(f"lora cannot be combined with method {self.method!r}; choose one")
        if self.lora is not None and self.optimizer == "muon":
            raise ValueError("muon does not support the thin matrices of lora; set optimizer to adamw")
        if self.parallel == "fsdp" and self.optimizer == "muon":
            raise ValueError("muon needs complete matrices, and fsdp shards them; set optimizer to adamw")
        if self.teacher is not None and self.parallel == "fsdp":
            raise ValueError("teacher cannot be combined with parallel 'fsdp'; set parallel to ddp")
        if self.teacher is not None and self.frozen_image_layers == "all":
            raise ValueError(
                "teacher trains the image tower, and frozen_image_layers 'all' freezes it; lower it, "
                "or set teacher to null"
            )
        return self

    @property
    def is_elastic(self) -> bool:
        """Whether the run may continue with fewer than `workers` workers."""
        return self.min_workers is not None and self.min_workers < self.workers
