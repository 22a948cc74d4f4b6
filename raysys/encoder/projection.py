"""PCA as the last step of an encoder: shorter vectors, normalised again to length 1.

For unit vectors x: y = normalise((x - mean) @ components.T). The components are the leading eigenvectors
of the covariance (Jolliffe 2002, ch. 2); with whitening each is divided by the standard deviation along it.
The covariance follows from sums over the vectors, so that it is exact for any number of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from jaxtyping import Float32, Float64
from numpy import ndarray

from raysys.errors import InputError

PROJECTION_FILE = "projection.safetensors"
_ROUNDING = 1e-9  # shares of the variance below this are rounding errors of float32 vectors


@dataclass(frozen=True)
class Projection:
    """A fitted PCA; a bundle stores it as `projection.safetensors` with these two tensors."""

    mean: Float32[ndarray, " d"]
    components: Float32[ndarray, "k d"]

    @property
    def dimensions(self) -> int:
        """Length of the projected vectors."""
        return int(self.components.shape[0])

    def apply(self, vectors: Float32[ndarray, "n d"]) -> Float32[ndarray, "n k"]:
        """Unit vectors of the smaller space; `vectors` are unit vectors of the encoder's space."""
        projected = (vectors - self.mean) @ self.components.T
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        return np.asarray(projected / np.maximum(lengths, 1e-12), dtype=np.float32)

    def first(self, dimensions: int) -> Projection:
        """The projection on the first components alone: the PCA of fewer dimensions."""
        return Projection(self.mean, self.components[:dimensions])

    def save(self, folder: Path) -> None:
        """Write `projection.safetensors` to `folder`."""
        tensors = {"mean": self.mean, "components": np.ascontiguousarray(self.components)}
        safetensors.numpy.save_file(tensors, folder / PROJECTION_FILE)


@dataclass(frozen=True)
class Moments:
    """What a PCA needs of many vectors: their number, sum, and sum of outer products. They add up."""

    num: int
    sums: Float64[ndarray, " d"]
    products: Float64[ndarray, "d d"]

    @classmethod
    def of(cls, vectors: Float32[ndarray, "n d"]) -> Moments:
        """The moments of the rows."""
        wide = vectors.astype(np.float64)
        return cls(len(wide), wide.sum(axis=0), wide.T @ wide)

    def __add__(self, other: Moments) -> Moments:
        return Moments(self.num + other.num, self.sums + other.sums, self.products + other.products)

    @property
    def has_variance(self) -> bool:
        """False if the vectors are all equal, up to the rounding of the sums."""
        return bool(self.num and self.covariance().trace() > _ROUNDING * self.products.trace() / self.num)

    def covariance(self) -> Float64[ndarray, "d d"]:
        """The covariance of at least one vector, divided by their number."""
        mean = self.sums / self.num
        return self.products / self.num - np.outer(mean, mean)


def fit_projection(moments: Moments, dimensions: int, *, whiten: bool = False) -> Projection:
    """The `dimensions` leading principal components of the vectors with these moments.

    The component's largest number is positive. With `whiten`, all directions get variance 1, but for those
    without any.
    Raises: InputError if `dimensions` is larger than the number or the length of the vectors.
    """
    limit = min(moments.num, len(moments.sums))
    if dimensions > limit:
        raise InputError(
            f"projection.dimensions: {dimensions} components cannot be fitted to {moments.num} vectors "
            f"of {len(moments.sums)} dimensions; set it to {limit} or less, or to null"
        )
    variances, directions = np.linalg.eigh(moments.covariance())  # in ascending order
    variances, components = variances[::-1][:dimensions], directions.T[::-1][:dimensions]
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    components = components * np.sign(largest)
    if whiten:
        components = components / np.sqrt(np.maximum(variances, _ROUNDING * variances[0]))[:, None]
    mean = moments.sums / moments.num
    return Projection(mean=mean.astype(np.float32), components=components.astype(np.float32))


def load_projection(folder: Path) -> Projection | None:
    """The projection stored in a bundle's folder, or None if the bundle has none."""
    if not (folder / PROJECTION_FILE).exists():
        return None
    tensors = safetensors.numpy.load_file(folder / PROJECTION_FILE)
    return Projection(mean=tensors["mean"], components=tensors["components"])
