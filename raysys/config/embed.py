"""The sections `embed` and `projection`: vectors of the catalogue."""

from __future__ import annotations

from typing import Annotated

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from raysys.config.section import (
    ChosenPrecision,
    HubIdOrPath,
    Precision,
    RunName,
    Section,
    SplitNames,
    UriPath,
    chosen_precision,
)


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
    precision: Precision = "auto"
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
    def chosen_precision(self) -> ChosenPrecision:
        """`precision`, or the one of the device."""
        return chosen_precision(self.precision, is_on_gpu=self.use_gpu)

    @property
    def is_compiled(self) -> bool:
        """Whether the encoder is compiled."""
        return self.use_gpu and self.compile
