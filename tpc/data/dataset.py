"""A classification data set in memory: normalised inputs, labels, and how the inputs were normalised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tpc.errors import UsageError

Inputs = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Normalisation:
    """x = (pixel / scale − mean[c]) / std[c] for channel c; channels are contiguous blocks of columns."""

    scale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        mean = ", ".join(f"{m:.8g}" for m in self.mean)
        std = ", ".join(f"{s:.8g}" for s in self.std)
        return f"(pixel / {self.scale:g} − ({mean})) / ({std})"

    def apply(self, images: Pixels, out: Inputs) -> Inputs:
        """Normalise images of shape (n, d) into `out` of the same shape, in its precision, and return it."""
        channels = len(self.mean)
        plane = images.shape[1] // channels if channels > 1 else 1  # one channel: two numbers do for all columns
        centre = np.repeat(np.asarray(self.mean) * self.scale, plane).astype(out.dtype)
        spread = np.repeat(np.asarray(self.std) * self.scale, plane).astype(out.dtype)
        if centre.any():
            np.subtract(images, centre, out=out)
            return np.divide(out, spread, out=out)
        return np.divide(images, spread, out=out)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Training and test sets of one classification task; the arrays are read-only.

    `train_x` (N, d) and `test_x` (M, d) are float32 or float64, one row per sample; `train_y` (N,) and
    `test_y` (M,) are int64 labels in 0 … len(class_names) − 1.
    """

    name: str
    train_x: Inputs
    train_y: Labels
    test_x: Inputs
    test_y: Labels
    class_names: tuple[str, ...]
    normalisation: Normalisation

    def __post_init__(self) -> None:
        for array in (self.train_x, self.train_y, self.test_x, self.test_y):
            array.flags.writeable = False

    @property
    def input_dim(self) -> int:
        """The number of features d of one sample."""
        return int(self.train_x.shape[1])

    @property
    def classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)

    def __repr__(self) -> str:
        return (
            f"Dataset({self.name!r}, {len(self.train_x):,} train + {len(self.test_x):,} test, "
            f"d = {self.input_dim}, {self.classes} classes, {self.train_x.dtype})"
        )


def require_limit(limit: int | None, available: int, name: str) -> None:
    """Refuse a limit on the training samples that is not met by the `available` ones."""
    if limit is not None and not 1 <= limit <= available:
        raise UsageError(f"Expected a limit of 1 … {available:,} training images for {name}, got {limit:,}.")
