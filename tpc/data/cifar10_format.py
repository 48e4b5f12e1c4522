"""The two official formats of CIFAR-10: Python pickles and binary records, read from bytes and checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tpc.data.containers import MAX_FILE
from tpc.data.dataset import Labels, Pixels
from tpc.data.source import Download
from tpc.data.unpickle import UnpickleError, loads, text
from tpc.errors import DataError

SITE = "https://www.cs.toronto.edu/~kriz/"
WIDTH = 3 * 32 * 32
RECORD = 1 + WIDTH
OFFICIAL_ROWS = 10_000
CLASS_NAMES: tuple[str, ...] = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
FIX = "  Fix: `tpc data get cifar10 --data-dir DIR` downloads the official archive (163 MB), used as it is."

Batch = tuple[Pixels, Labels]


@dataclass(frozen=True)
class Layout:
    """One of the two official formats: its folder, its archive, its files and how to read one.

    `md5` holds the checksums of the official files where they are known.
    """

    folder: str
    download: Download
    train: tuple[str, ...]
    test: str
    meta: str
    read: Callable[[bytes, str], Batch]
    read_names: Callable[[bytes, str], tuple[str, ...]]
    md5: Mapping[str, str] = field(default_factory=dict)

    @property
    def batches(self) -> tuple[str, ...]:
        return (*self.train, self.test)

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.batches, self.meta)


def corrupted(label: str, why: str) -> DataError:
    return DataError(f"{label} is truncated or corrupted: {why}.\n{FIX}")


def _unpickle(raw: bytes, label: str) -> dict[str, Any]:
    if len(raw) > MAX_FILE:
        raise corrupted(label, f"expected at most {MAX_FILE:,} bytes, got {len(raw):,}")
    try:
        return loads(raw)
    except UnpickleError as error:
        raise corrupted(label, str(error)) from error


def _read_pickle(raw: bytes, label: str) -> Batch:
    content = _unpickle(raw, label)
    pixels, labels = content.get("data"), content.get("labels")
    expected = f"expected 'data' as uint8 of shape (images, {WIDTH})"
    if not isinstance(pixels, np.ndarray):
        raise corrupted(label, f"{expected}, got {type(pixels).__name__}")
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != WIDTH:
        raise corrupted(label, f"{expected}, got {pixels.dtype} of shape {pixels.shape}")
    if isinstance(labels, np.ndarray) and labels.ndim == 1:
        labels = labels.tolist()
    if not (isinstance(labels, list) and all(type(value) is int for value in labels)):
        raise corrupted(label, f"expected 'labels' as a list of integers, got {type(labels).__name__}")
    return _checked(pixels, labels, label)


def _read_records(raw: bytes, label: str) -> Batch:
    if len(raw) % RECORD:
        raise corrupted(label, f"expected a multiple of {RECORD:,} bytes (label and pixels), got {len(raw):,}")
    records = np.frombuffer(raw, np.uint8).reshape(-1, RECORD)
    return _checked(records[:, 1:], records[:, 0].tolist(), label)


def _checked(pixels: Pixels, labels: list[int], label: str) -> Batch:
    if len(labels) != len(pixels):
        raise corrupted(label, f"expected {len(pixels):,} labels, one per image, got {len(labels):,}")
    if not labels:
        raise corrupted(label, "it holds no images")
    last = len(CLASS_NAMES) - 1
    for index, value in enumerate(labels):
        if not 0 <= value <= last:
            raise corrupted(label, f"expected labels 0 … {last}, got {str(value)[:20]} for image {index:,}")
    return pixels, np.array(labels, dtype=np.int64)


def _names_from_pickle(raw: bytes, label: str) -> tuple[str, ...]:
    names = _unpickle(raw, label).get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, (str, bytes)) for name in names):
        raise corrupted(label, "expected 'label_names' as a list of strings")
    return _ten([text(name) for name in names], label)


def _names_from_text(raw: bytes, label: str) -> tuple[str, ...]:
    return _ten(raw.decode("latin-1").split(), label)


def _ten(names: list[str], label: str) -> tuple[str, ...]:
    if len(names) != len(CLASS_NAMES) or not all(name.isprintable() and len(name) <= 64 for name in names):
        raise corrupted(label, f"expected the names of {len(CLASS_NAMES)} classes, got {len(names)}")
    return tuple(names)


PYTHON = Layout(
    folder="cifar-10-batches-py",
    download=Download(
        file="cifar-10-python.tar.gz",
        url=f"{SITE}cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        size=170_498_071,
    ),
    train=tuple(f"data_batch_{k}" for k in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    read=_read_pickle,
    read_names=_names_from_pickle,
    md5={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
        "test_batch": "40351d587109b95175f43aff81a1287e",
        "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
    },
)
BINARY = Layout(
    folder="cifar-10-batches-bin",
    download=Download(
        file="cifar-10-binary.tar.gz",
        url=f"{SITE}cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        size=170_052_171,
    ),
    train=tuple(f"data_batch_{k}.bin" for k in range(1, 6)),
    test="test_batch.bin",
    meta="batches.meta.txt",
    read=_read_records,
    read_names=_names_from_text,
)
LAYOUTS = (PYTHON, BINARY)
