"""Images moved by whole pixels, an augmentation of training data."""

from __future__ import annotations

from math import isqrt

import numpy as np
import numpy.typing as npt

from tpc.data.dataset import Pixels
from tpc.errors import UsageError


def moved(images: Pixels, rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]) -> Pixels:
    """Every image (n, d) moved down by its number in `rows` and right by that in `columns`; zeros move in.

    Raises UsageError for images that are not square.
    """
    side = isqrt(images.shape[1])
    if side * side != images.shape[1]:
        raise UsageError(f"only square images of one channel can be moved, got {images.shape[1]} pixels.")
    most = int(max(np.abs(rows).max(initial=0), np.abs(columns).max(initial=0)))
    padded = np.zeros((len(images), side + 2 * most, side + 2 * most), images.dtype)
    padded[:, most : most + side, most : most + side] = images.reshape(-1, side, side)
    along = np.arange(side) + most
    which = np.arange(len(images))[:, None, None]
    taken: Pixels = padded[which, (along - rows[:, None])[:, :, None], (along - columns[:, None])[:, None, :]]
    return taken.reshape(images.shape)
