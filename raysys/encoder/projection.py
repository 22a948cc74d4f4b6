"""PCA as the last step of an encoder: shorter vectors, normalised again to length 1.

For unit vectors x: y = normalise((x - mean) @ components.T). The components are the leading eigenvectors
of the covariance (Jolliffe 2002, ch. 2), computed by scikit-learn's full SVD or randomised solver.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import safetensors.numpy
from jaxtyping import Float32
from numpy import ndarray

from raysys.errors import InputError

PROJECTION_FILE = "projection.safetensors"


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

    def save(self, folder: Path) -> None:
        """Write `projection.safetensors` to `folder`."""
        tensors = {"mean": self.mean, "components": np.ascontiguousarray(self.components)}
        safetensors.numpy.save_file(tensors, folder / PROJECTION_FILE)


def fit_projection(vectors: Float32[ndarray, "n d"], dimensions: int, *, seed: int) -> Projection:
    """The `dimensions` leading principal components of the vectors.

    Raises: InputError if `dimensions` is larger than the number or the length of the vectors.
    """
    from sklearn.decomposition import PCA  # takes seconds to import, and only fitting needs it

    limit = min(vectors.shape)
    if dimensions > limit:
        raise InputError(
            f"projection.dimensions: {dimensions} components cannot be fitted to {vectors.shape[0]} vectors "
            f"of {vectors.shape[1]} dimensions; set it to {limit} or less, or to null"
        )
    pca = PCA(n_components=dimensions, random_state=seed).fit(vectors)
    return Projection(mean=pca.mean_.astype(np.float32), components=pca.components_.astype(np.float32))


def load_projection(folder: Path) -> Projection | None:
    """The projection stored in a bundle's folder, or None if the bundle has none."""
    if not (folder / PROJECTION_FILE).exists():
        return None
    tensors = safetensors.numpy.load_file(folder / PROJECTION_FILE)
    return Projection(mean=tensors["mean"], components=tensors["components"])
