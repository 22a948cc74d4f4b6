"""The base class of all sections of the configuration, the types they share, and field markers.

A marker is metadata of a field (`Annotated[str, UriPath()]`). Code that treats some settings differently
looks for the marker instead of keeping a list of names.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)


def _without_repetition(splits: tuple[SplitName, ...]) -> tuple[SplitName, ...]:
    for split in splits:
        if splits.count(split) > 1:
            raise ValueError(f"'{split}' is listed {splits.count(split)} times; list each split once")
    return splits


SplitNames = Annotated[tuple[SplitName, ...], Field(min_length=1), AfterValidator(_without_repetition)]


RunName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


ChosenPrecision = Literal["fp32", "bf16"]
Precision = Literal["auto", "fp32", "bf16"]


def chosen_precision(precision: Precision, *, is_on_gpu: bool) -> ChosenPrecision:
    """`precision`, or for `auto` the one of the device: bf16 on a GPU, fp32 on a CPU."""
    if precision == "auto":
        return "bf16" if is_on_gpu else "fp32"
    return precision


class Section(BaseModel):
    """Base class of all sections: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


@dataclass(frozen=True)
class UriPath:
    """Marks a setting that holds a local path or a URI; a relative path depends on the current folder."""

    keywords: tuple[str, ...] = ()
    """Values that are not paths."""


@dataclass(frozen=True)
class HubIdOrPath:
    """Marks a setting that holds a Hugging Face hub id or the path of a local folder."""

    keywords: tuple[str, ...] = ()
    """Values that are neither."""


class ChangeableOnResume:
    """Marks a setting of `train` that may change while a run continues.

    It does not change the update of a given step, so it is not part of the run's spec hash. Two that do are
    among them, and part of the bundle's hash: a longer run (`epochs`) continues a shorter one, with the
    learning rate schedule of the new length, and a run without `patch_dropout` ends one with it.
    """


class SelectsCheckpoint:
    """Marks a setting that decides which checkpoint of a run is exported, or when the run ends early."""


class SelectsAlpha:
    """Marks a setting that decides which interpolation (`alpha`) of `train.method: wise_ft` is delivered."""


Marker = TypeVar("Marker")


def marked_names(section: type[Section], marker: type[Marker]) -> set[str]:
    """Names of the fields of a section that carry the marker."""
    return {name for name, _ in _marked(section, marker)}


def marked_values(
    section: Section, marker: type[Marker], prefix: str = ""
) -> Iterator[tuple[str, object, Marker]]:
    """Dotted key, value and marker of every marked field of a section and of the sections inside it.

    The key of a section in a list has its number, from 0: `evaluate.baselines.0.embeddings`.

    Only sections in use are visited: the chosen `kind` of a union, and optional sections that are set.
    """
    markers = dict(_marked(type(section), marker))
    for name, value in section:
        if isinstance(value, Section):
            yield from marked_values(value, marker, f"{prefix}{name}.")
        elif isinstance(value, tuple) and any(isinstance(entry, Section) for entry in value):
            for number, entry in enumerate(value):
                yield from marked_values(entry, marker, f"{prefix}{name}.{number}.")
        elif name in markers:
            yield f"{prefix}{name}", value, markers[name]


def _marked(section: type[Section], marker: type[Marker]) -> Iterator[tuple[str, Marker]]:
    for name, field in section.model_fields.items():
        for metadata in field.metadata:
            if isinstance(metadata, marker):
                yield name, metadata
