"""Images moved by whole pixels, an augmentation of training data and of what a task is learned from."""

from __future__ import annotations

from math import isqrt
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from tpc.errors import UsageError

Number = TypeVar("Number", bound=np.generic)


def moved(
    images: npt.NDArray[Number], rows: npt.NDArray[np.int64], columns: npt.NDArray[np.int64]
) -> npt.NDArray[Number]:
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
    down, right = (along - rows[:, None])[:, :, None], (along - columns[:, None])[:, None, :]
    taken: npt.NDArray[Number] = padded[which, down, right]
    return taken.reshape(images.shape)
