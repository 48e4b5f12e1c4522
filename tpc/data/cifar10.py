"""CIFAR-10 from its official files, in a folder or straight from the .tar.gz archive."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from tpc.data.cifar10_format import (
    BINARY,
    CLASS_NAMES,
    FIX,
    LAYOUTS,
    OFFICIAL_ROWS,
    PYTHON,
    RECORD,
    WIDTH,
    Layout,
    corrupted,
)
from tpc.data.containers import MAX_FILE, Archive, Container, Folder
from tpc.data.dataset import Dataset, Labels, Normalisation, require_limit
from tpc.data.source import FileCheck, Holding, Source, md5_hex, md5_of
from tpc.errors import DataError

NAME = "cifar10"
NORMALISATION = Normalisation(
    scale=255.0, mean=(0.49137255, 0.48235294, 0.44666667), std=(0.24705882, 0.24352941, 0.26156863)
)


def load_cifar10(data_dir: Path, limit_train: int | None = None, dtype: npt.DTypeLike = np.float32) -> Dataset:
    """CIFAR-10, d = 3072: 50,000 training and 10,000 test images of 32×32 pixels in 10 classes.

    `data_dir` is a folder with the official files (`cifar-10-batches-py` or `cifar-10-batches-bin`), a folder
    holding such a folder or an official archive, or the archive itself. `limit_train` keeps the first images
    in file order, `data_batch_1` first; that order is random already. Features keep the official order: red
    plane, green plane, blue plane, each row by row, normalised per channel with the constants of Yang,
    Santacroce & Hu, "Efficient Computation of Deep Nonlinear Infinite-Width Neural Networks that Learn
    Features" (ICLR 2022). Raises DataError where the files are missing, truncated or corrupted.
    Source: Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009).
    """
    source, layout = locate(data_dir)
    _require_usable(source, layout)
    sizes = source.sizes()
    names = CLASS_NAMES
    if layout.meta in sizes:
        names = layout.read_names(source.take(layout.meta), source.label(layout.meta))
    room = sum(min(sizes[name], MAX_FILE) for name in layout.train) // WIDTH  # no fewer than there are images
    wanted = room if limit_train is None else min(room, limit_train)
    train_x = np.empty((wanted, WIDTH), dtype)
    labels: list[Labels] = []
    rows = 0
    for name in layout.train:
        if limit_train is None or rows < limit_train:
            images, batch_labels = layout.read(source.take(name), source.label(name))
            kept = min(len(images), wanted - rows)
            NORMALISATION.apply(images[:kept], out=train_x[rows : rows + kept])
            labels.append(batch_labels[:kept])
            rows += kept
    require_limit(limit_train, rows, NAME)
    images, test_y = layout.read(source.take(layout.test), source.label(layout.test))
    return Dataset(
        name=NAME,
        train_x=train_x[:rows],
        train_y=np.concatenate(labels),
        test_x=NORMALISATION.apply(images, np.empty(images.shape, dtype)),
        test_y=test_y,
        class_names=names,
        normalisation=NORMALISATION,
    )


def locate(data_dir: Path) -> tuple[Container, Layout]:
    """The files to read: a complete folder before an archive before an incomplete folder."""
    found = candidates(data_dir)
    for path, layout in found:
        if path.is_file():
            return Archive(path, layout.folder, layout.files), layout
        folder = Folder(path, layout.files)
        if not _missing(folder, layout) or all(other.is_dir() for other, _ in found):
            return folder, layout
    archives = [each.download.file for each in LAYOUTS]
    if data_dir.is_file():
        raise DataError(f"{data_dir} is not a CIFAR-10 archive: expected {' or '.join(archives)}.\n{FIX}")
    state = "is an existing folder without them" if data_dir.is_dir() else "does not exist"
    expected = ", ".join([f"{each.folder}/" for each in LAYOUTS] + archives)
    raise DataError(f"CIFAR-10 was not found: expected one of {expected} in {data_dir}, which {state}.\n{FIX}")


def candidates(data_dir: Path) -> list[tuple[Path, Layout]]:
    """Every official folder and archive at or in `data_dir`, folders first."""
    found: list[tuple[Path, Layout]] = []
    for layout in LAYOUTS:
        named = data_dir.is_dir() and data_dir.name == layout.folder
        if named or any((data_dir / name).is_file() for name in layout.batches):
            found.append((data_dir, layout))
    found += [(data_dir / each.folder, each) for each in LAYOUTS if (data_dir / each.folder).is_dir()]
    for layout in LAYOUTS:
        archive = data_dir if data_dir.name == layout.download.file else data_dir / layout.download.file
        if archive.is_file():
            found.append((archive, layout))
    return found


def _missing(source: Container, layout: Layout) -> list[str]:
    sizes = source.sizes()
    return [name for name in layout.batches if name not in sizes]


def _cut(source: Container, layout: Layout) -> dict[str, str]:
    """Binary files of another size than the official one beside files that have it, with the reason.

    Records carry no count, so a file cut at the end of a record shows only beside the others.
    """
    full = OFFICIAL_ROWS * RECORD
    sizes = {name: size for name, size in source.sizes().items() if name in layout.batches}
    if layout is not BINARY or full not in sizes.values():
        return {}
    wrong = {name: size for name, size in sizes.items() if size != full}
    return {name: f"expected {full:,} bytes like the others, got {size:,}" for name, size in wrong.items()}


def _require_usable(source: Container, layout: Layout) -> None:
    missing = _missing(source, layout)
    if missing:
        raise DataError(f"{source.path} is incomplete: {', '.join(missing)} missing.\n{FIX}")
    for name, why in _cut(source, layout).items():
        raise corrupted(source.label(name), why)


def check(data_dir: Path) -> list[FileCheck]:
    """Read every official folder and archive at or in `data_dir`, file by file."""
    rows: list[FileCheck] = []
    for path, layout in candidates(data_dir):
        if path.is_dir():
            rows += _check_files(Folder(path, layout.files), layout)
            continue
        try:
            archive = Archive(path, layout.folder, layout.files)
        except DataError as error:
            rows.append(FileCheck(str(path), False, _short(error, str(path))))
            continue
        published = layout.download.md5
        got = md5_of(path)
        other = f"readable, but not the published archive: MD5 checksum {got}, published {published}"
        rows.append(FileCheck(str(path), True, "the published archive" if got == published else other))
        rows += _check_files(archive, layout)
    return rows or [FileCheck(str(data_dir), False, "no official CIFAR-10 folder or archive here")]


def _check_files(source: Container, layout: Layout) -> list[FileCheck]:
    sizes, cut = source.sizes(), _cut(source, layout)
    rows: list[FileCheck] = []
    for name in layout.files:
        label = source.label(name)
        if name not in sizes:
            optional = name == layout.meta
            rows.append(FileCheck(label, optional, "missing" + ", the standard class names serve" * optional))
            continue
        try:
            content = source.take(name)
            if name in cut:
                raise corrupted(label, cut[name])
            if name == layout.meta:
                message = f"{len(layout.read_names(content, label))} class names"
            else:
                message = f"{len(layout.read(content, label)[1]):,} images"
        except DataError as error:
            rows.append(FileCheck(label, False, _short(error, label)))
            continue
        if name in layout.md5:
            official = md5_hex(content) == layout.md5[name]
            message += ", the official file" if official else ", well formed but not the official file"
        rows.append(FileCheck(label, True, message))
    return rows


def _short(error: DataError, label: str) -> str:
    return str(error).splitlines()[0].removeprefix(f"{label} is ").rstrip(".")


def holdings(data_dir: Path) -> list[Holding]:
    """The official folders and archives at or in `data_dir`, by names and sizes."""
    rows: list[Holding] = []
    for path, layout in candidates(data_dir):
        if path.is_dir():
            folder = Folder(path, layout.files)
            missing = _missing(folder, layout)
            status = f"incomplete: {', '.join(missing)} missing" if missing else "complete"
            rows.append(Holding(NAME, str(path), sum(folder.sizes().values()), status))
        else:
            size, published = path.stat().st_size, layout.download.size
            status = "archive" if size == published else f"archive, not of the published {published:,} bytes"
            rows.append(Holding(NAME, str(path), size, status))
    return rows or [Holding(NAME, str(data_dir), 0, "not here; `tpc data get cifar10` downloads it (163 MB)")]


SOURCE = Source(
    name=NAME,
    summary="60,000 colour images of 32×32 pixels in 10 classes (Krizhevsky, 2009)",
    load=load_cifar10,
    check=check,
    holdings=holdings,
    downloads=(PYTHON.download,),
)
