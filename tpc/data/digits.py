"""The handwritten digits bundled with scikit-learn: 1,797 images of 8×8 pixels with values 0 … 16."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tpc.data.dataset import Dataset, Normalisation, require_limit
from tpc.data.source import FileCheck, Holding, Source

NAME = "digits"
TRAIN = 1500
SPLIT_SEED = 0
SCALE = 16.0
BUNDLED = "scikit-learn"
BUNDLED_FILE = Path("datasets", "data", "digits.csv.gz")  # within the package; the last column is the digit
SHAPE = (1797, 65)


def load_digits(limit_train: int | None = None, dtype: npt.DTypeLike = np.float32) -> Dataset:
    """The embedded digits, d = 64: 1,500 training images and the 297 others for testing.

    The split is a fixed permutation (`numpy.random.RandomState(0)`, whose stream is frozen by NumPy's
    compatibility policy). Pixels are divided by 16, then centred and scaled by the mean and the standard
    deviation of all pixels of the 1,500 training images, two numbers in all, whatever `limit_train` keeps.
    Source: Alpaydin & Kaynak, Optical Recognition of Handwritten Digits, UCI (1998), the test part.
    """
    pixels, labels = _bundled()
    order = np.random.RandomState(SPLIT_SEED).permutation(len(pixels))
    train, test = order[:TRAIN], order[TRAIN:]
    require_limit(limit_train, TRAIN, NAME)
    kept = train[:limit_train]
    scaled = pixels[train] / SCALE
    normalisation = Normalisation(SCALE, mean=(float(scaled.mean()),), std=(float(scaled.std()),))
    images = pixels.astype(np.uint8)
    train_x, test_x = (np.empty((len(rows), images.shape[1]), dtype) for rows in (kept, test))
    return Dataset(
        name=NAME,
        train_x=normalisation.apply(images[kept], train_x),
        train_y=labels[kept].astype(np.int64),
        test_x=normalisation.apply(images[test], test_x),
        test_y=labels[test].astype(np.int64),
        class_names=tuple(str(digit) for digit in range(10)),
        normalisation=normalisation,
    )


def _bundled() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Pixels (1797, 64) and digits (1797,), from scikit-learn's file: importing it costs most of a second.

    Where a release of scikit-learn keeps no such file, or something else in it, its own function is asked.
    """
    spec = importlib.util.find_spec("sklearn")
    for folder in (spec and spec.submodule_search_locations) or ():
        try:
            with gzip.open(Path(folder) / BUNDLED_FILE, "rt", encoding="ascii") as lines:
                table = np.loadtxt(lines, delimiter=",")
        except (OSError, EOFError, ValueError):
            continue
        if table.shape == SHAPE and table.min() >= 0 and table.max() <= SCALE:
            return table[:, :-1], table[:, -1].astype(np.int64)
    from sklearn.datasets import load_digits as bundled

    pixels, labels = bundled(return_X_y=True)
    return pixels, labels


def _load(data_dir: Path, limit_train: int | None, dtype: npt.DTypeLike) -> Dataset:
    del data_dir  # bundled
    return load_digits(limit_train, dtype)


def _check(data_dir: Path) -> list[FileCheck]:
    del data_dir
    data = load_digits()
    return [FileCheck(BUNDLED, True, f"{len(data.train_x) + len(data.test_x):,} images")]


def _holdings(data_dir: Path) -> list[Holding]:
    del data_dir
    return [Holding(NAME, BUNDLED, 0, "bundled")]


SOURCE = Source(
    name=NAME,
    summary="1,797 images of 8×8 pixels in 10 classes, bundled with scikit-learn",
    load=_load,
    check=_check,
    holdings=_holdings,
)
