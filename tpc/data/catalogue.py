"""The data sets tpc knows, by name, and the four things to do with them: load, get, verify, ls."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tpc.data import cifar10, digits, omniglot
from tpc.data.dataset import Dataset
from tpc.data.download import Progress, fetch
from tpc.data.source import FileCheck, Holding, Source, disk_trouble
from tpc.errors import UsageError, did_you_mean

SOURCES: dict[str, Source] = {source.name: source for source in (digits.SOURCE, cifar10.SOURCE, omniglot.SOURCE)}
"""The data sets that there are, by name."""


def default_data_dir() -> Path:
    """The folder of the environment variable TPC_DATA_DIR, otherwise `data` in the working directory."""
    return Path(os.environ.get("TPC_DATA_DIR") or "data")


def load(
    name: str, data_dir: Path | None = None, limit_train: int | None = None, dtype: npt.DTypeLike = np.float32
) -> Dataset:
    """Load a data set, "digits" or "cifar10", with inputs of type float32 or float64.

    `data_dir` is where its files are (default: `default_data_dir()`); `limit_train` keeps the first
    training samples only. Raises UsageError for an unknown name or an impossible limit, DataError for
    files that cannot be used. Omniglot is no such data set; `load_omniglot` and `episodes` are for it.
    """
    source = _source(name)
    if np.dtype(dtype) not in (np.float32, np.float64):
        raise UsageError(f"Expected inputs of type float32 or float64, got {np.dtype(dtype).name}.")
    if limit_train is not None and limit_train < 1:
        raise UsageError(f"Expected at least one training sample, got a limit of {limit_train}.")
    folder = _folder(data_dir)
    with disk_trouble(folder):
        return source.load(folder, limit_train, dtype)


def get(name: str, data_dir: Path | None = None, *, url: str | None = None, progress: Progress | None = None) -> Path:
    """Download a data set from its publisher into `data_dir`: progress, resumption, checksum (see `fetch`).

    Returns the file, or the folder where the data set has several. `url` replaces the publisher's address of
    a data set with one file. Raises UsageError where there is nothing to download, DataError where it fails.
    """
    source = _source(name)
    if not source.downloads:
        raise UsageError(f"{name} needs no download: {source.summary}.")
    if url is not None and len(source.downloads) > 1:
        raise UsageError(f"{name} has {len(source.downloads)} files; one address cannot replace them.")
    folder = _folder(data_dir)
    files = [fetch(download, folder, url=url, progress=progress) for download in source.downloads]
    return files[0] if len(files) == 1 else folder


def verify(name: str, data_dir: Path | None = None) -> list[FileCheck]:
    """Read every file of a data set in `data_dir` and say of each whether it can be used, and why not."""
    source, folder = _source(name), _folder(data_dir)
    with disk_trouble(folder):
        return source.check(folder)


def ls(data_dir: Path | None = None) -> list[Holding]:
    """What is there of every data set, partial downloads included, by names and sizes only."""
    folder = _folder(data_dir)
    with disk_trouble(folder):
        return _holdings(folder)


def _holdings(folder: Path) -> list[Holding]:
    rows: list[Holding] = []
    for source in SOURCES.values():
        rows += source.holdings(folder)
        for download in source.downloads:
            part = folder / f"{download.file}.part"
            if part.is_file():
                size = part.stat().st_size
                status = f"partial download, {100 * size / download.size:.0f} %"
                rows.append(Holding(source.name, str(part), size, status))
    return rows


def _folder(data_dir: Path | None) -> Path:
    return Path(data_dir).expanduser() if data_dir is not None else default_data_dir()


def _source(name: str) -> Source:
    if name not in SOURCES:
        hint = did_you_mean(name, SOURCES)
        raise UsageError(f"Unknown data set {name!r}: expected one of {', '.join(SOURCES)}.{hint}")
    return SOURCES[name]
