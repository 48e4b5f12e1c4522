"""A table of classes with equally many images each: what few-shot episodes are drawn from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt

import numpy as np

from tpc.data.dataset import Normalisation, Pixels
from tpc.errors import UsageError

UNIT = Normalisation(scale=255.0, mean=(0.0,), std=(1.0,))
"""Pixels as numbers in [0, 1], otherwise unchanged."""

TURNS = ("rot000", "rot090", "rot180", "rot270")


@dataclass(frozen=True, eq=False)
class ClassTable:
    """C classes of n square images each, as pixels; read-only.

    `images` (C, n, d) is uint8, each image of d pixels row by row, 255 where there is ink; `names` has a name per
    class, `alphabet/character/rotation` (such as "Greek/character01/rot090"), that of a mirrored one with `/mirrored`.
    """

    images: Pixels
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        self.images.flags.writeable = False

    def __len__(self) -> int:
        """The number of classes C."""
        return len(self.names)

    @property
    def images_per_class(self) -> int:
        """The number of images n of every class."""
        return int(self.images.shape[1])

    @property
    def input_dim(self) -> int:
        """The number of pixels d of an image."""
        return int(self.images.shape[2])

    @property
    def alphabets(self) -> tuple[str, ...]:
        """The alphabet of every class."""
        return tuple(name.split("/", 1)[0] for name in self.names)

    def take(self, rows: Sequence[int]) -> ClassTable:
        """The classes of these numbers, in this order."""
        return ClassTable(self.images[np.asarray(rows, dtype=np.intp)], tuple(self.names[row] for row in rows))

    def rotated(self) -> ClassTable:
        """Four classes for each: upright and turned by 90°, 180° and 270° counterclockwise, in this order.

        The augmentation of Santoro et al., "Meta-Learning with Memory-Augmented Neural Networks" (ICML 2016).
        """
        classes, count, pixels = self.images.shape
        side = isqrt(pixels)
        upright = self.images.reshape(classes, count, side, side)
        turned = np.stack([np.rot90(upright, turn, axes=(2, 3)) for turn in range(len(TURNS))], axis=1)
        names = tuple(f"{name.rpartition('/')[0]}/{turn}" for name in self.names for turn in TURNS)
        return ClassTable(turned.reshape(len(TURNS) * classes, count, pixels), names)

    def mirrored(self) -> ClassTable:
        """Two classes for each: all classes as they are, then all of them with left and right exchanged.

        The mirror image of a letter is another letter, as a turned one is.
        """
        classes, count, pixels = self.images.shape
        side = isqrt(pixels)
        mirrored = self.images.reshape(classes, count, side, side)[..., ::-1].reshape(self.images.shape)
        names = tuple(f"{name}/mirrored" for name in self.names)
        return ClassTable(np.concatenate([self.images, mirrored]), self.names + names)

    def statistics(self) -> Normalisation:
        """The normalisation that gives the pixels of this table mean 0 and standard deviation 1."""
        if not len(self):
            raise UsageError("Expected classes to take the mean and the standard deviation of, got none.")
        counts = np.bincount(self.images.ravel(), minlength=256) / self.images.size
        values = np.arange(256) / UNIT.scale
        mean = float(counts @ values)
        std = float(np.sqrt(counts @ (values - mean) ** 2))
        return Normalisation(UNIT.scale, (mean,), (std or 1.0,))

    def __repr__(self) -> str:
        alphabets = len(set(self.alphabets))
        return f"ClassTable({len(self):,} classes of {alphabets} alphabets, {self.images_per_class} images each)"
