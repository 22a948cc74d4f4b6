"""Settings of `raysys pack`: splits, duplicates, shards and limits on photos."""

from __future__ import annotations

import datetime
from typing import Annotated, Literal

from pydantic import (
    BeforeValidator,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from raysys.config.section import Fraction, Section, UriPath

HostName = Annotated[str, Field(pattern=r"^\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$")]


def _date_as_text(value: object) -> object:
    """YAML parses a bare 2026-04-01 as a date."""
    return value.isoformat() if isinstance(value, datetime.date) else value


Moment = Annotated[str | float, BeforeValidator(_date_as_text)]


def moment_key(moment: str | float) -> tuple[float, str]:
    """Sort key of a moment: numbers compare as numbers, ISO dates as text."""
    return (0.0, moment) if isinstance(moment, str) else (float(moment), "")


class ColumnSplit(Section):
    """A column of the catalogue names the split of each listing."""

    kind: Literal["column"] = "column"
    column: str = "split"
    """Column with `train`, `val` or `test`. An image folder without this column uses the names of its
    sub-folders."""


class AttributeSplit(Section):
    """All listings with the same attribute value go to the same split, for example all listings of a seller.

    A hash of the value chooses the split, so a listing keeps its split when the catalogue grows.
    """

    kind: Literal["attribute"] = "attribute"
    attribute: str = "seller"
    """Attribute that groups listings. A listing without a value is a group of its own."""
    val_fraction: Fraction = 0.1
    """Share of the groups in the validation split."""
    test_fraction: Fraction = 0.2
    """Share of the groups in the test split."""
    seed: NonNegativeInt = 7
    """Seed of the hash."""


class GroupSplit(Section):
    """All listings of a duplicate group go to the same split (see `pack.duplicates`)."""

    kind: Literal["group"] = "group"
    val_fraction: Fraction = 0.1
    """Share of the groups in the validation split."""
    test_fraction: Fraction = 0.2
    """Share of the groups in the test split."""
    seed: NonNegativeInt = 7
    """Seed of the hash."""


class TimeSplit(Section):
    """The newest listings are the test split, the ones before them the validation split, the rest trains."""

    kind: Literal["time"] = "time"
    attribute: str = "listed_at"
    """Attribute with the time of a listing: ISO dates as text (compared as text), or numbers. A listing
    without a value goes to the training split."""
    val_from: Moment
    """First moment of the validation split."""
    test_from: Moment
    """First moment of the test split; not earlier than `val_from`."""

    @model_validator(mode="after")
    def _in_order(self) -> TimeSplit:
        if isinstance(self.val_from, str) != isinstance(self.test_from, str):
            raise ValueError("val_from and test_from must both be text or both be numbers")
        if moment_key(self.val_from) > moment_key(self.test_from):
            raise ValueError(f"val_from {self.val_from} is later than test_from {self.test_from}")
        return self


class DuplicatesConfig(Section):
    """Which listings form a duplicate group, in addition to listings with identical photos."""

    max_hash_distance: Annotated[int, Field(ge=0, le=12)] | None = 4
    """Photos are near duplicates if at most this many bits of their perceptual hashes differ: 64 bits of
    shape (pHash) and 48 of colour. Null: do not compare perceptual hashes."""
    seller: str | None = "seller"
    """Attribute that names the seller: listings of one seller with the same title are one group. Null: do not
    compare titles."""


class PackConfig(Section):
    """`raysys pack`: from a catalogue to WebDataset shards."""

    split: Annotated[ColumnSplit | AttributeSplit | GroupSplit | TimeSplit, Field(discriminator="kind")] = (
        AttributeSplit()
    )
    """How listings are assigned to the training, validation and test split."""
    duplicates: DuplicatesConfig = DuplicatesConfig()
    parent: Annotated[str | None, UriPath()] = None
    """The `shards` folder of an earlier root. Only listings that changed since then are packed; the new
    ShardSets refer to the parent's shards for the others. Null: pack everything."""
    shard_megabytes: PositiveInt = 256
    """Maximum size of a shard, in MiB. A shard ends at this size or at `items_per_shard`."""
    items_per_shard: PositiveInt = 4096
    """Maximum number of items in a shard."""
    max_bad_fraction: Fraction = 0.05
    """The stage stops if more than this share of the catalogue is refused."""
    max_megapixels: PositiveFloat = 64.0
    """Photos with more pixels are refused before they are decoded."""
    max_photo_megabytes: PositiveFloat = 50.0
    """Larger photo files are refused. A download stops at this size."""
    max_side_px: PositiveInt | None = None
    """Photos with a longer side are resized to this and encoded again. Null: keep every size."""
    allowed_hosts: tuple[HostName, ...] = ()
    """Hosts from which `https://` photos may be downloaded: `img.example.com`, or `.example.com` for all its
    subdomains."""
    fetch_timeout_s: PositiveFloat = 30.0
    """Timeout of one download attempt, in seconds. A download is attempted three times."""
    retry_refused: bool = False
    """Pack published ShardSets again if photos were refused as `unreachable`, which may have passed.
    `raysys pack CONFIG --retry-refused` sets it for one run."""
