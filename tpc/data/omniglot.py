"""Omniglot for few-shot learning, from its official archives: 1,623 characters of 50 alphabets, 20 drawings each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tpc.data import omniglot_splits as splits
from tpc.data.classes import TURNS, ClassTable
from tpc.data.dataset import Dataset
from tpc.data.omniglot_cache import FILE as CACHE
from tpc.data.omniglot_cache import Drawings, read_cache, write_cache
from tpc.data.omniglot_format import BACKGROUND, DRAWINGS, EVALUATION, FIX, FOLDER, PARTS, Part, read_archive
from tpc.data.source import FileCheck, Holding, Source, disk_trouble, md5_of
from tpc.errors import DataError, UsageError

NAME = "omniglot"


@dataclass(frozen=True, eq=False)
class Omniglot:
    """Class tables for training, validation and testing, and the split they come from (a name of `SPLITS`).

    Images have d = 784 pixels; no two tables share a character. `validation` is empty in the original split.
    """

    train: ClassTable
    validation: ClassTable
    test: ClassTable
    split: str


def load_omniglot(
    data_dir: Path,
    split: str | None = None,
    *,
    augment: bool = True,
    split_dir: Path | None = None,
    split_seed: int = 0,
) -> Omniglot:
    """Omniglot as class tables of 28×28 images, with ink as 255 and 20 images per class.

    `data_dir` is the folder of images_background.zip and images_evaluation.zip, or has them in a folder
    `omniglot`. `split` is "vinyals" (1,028, 172 and 423 characters; from the files train.txt, val.txt and test.txt
    in `split_dir`, or in `vinyals_split` beside the archives), "background" (the original: 964 characters for
    training, 659 for testing) or "seeded" (at random by `split_seed`, of the sizes of the first). Without a name it
    is the first where its files are there, otherwise the last. With `augment`, rotations by 90°, 180° and 270° make
    three further classes of every character for training and validation, never for testing.

    What is made from the archives is kept beside them as one file, checked when it is read and made again where it
    is damaged or of other archives. Raises DataError where a file is missing, damaged, hostile or not as
    published, UsageError for an unknown split.
    Source: Lake, Salakhutdinov & Tenenbaum, Science 350 (2015); images as in Vinyals et al. (NeurIPS 2016).
    """
    if split is not None and split not in splits.SPLITS:
        raise UsageError(f"Unknown split {split!r}: expected one of {', '.join(splits.SPLITS)}.")
    if split_dir is not None and split not in (None, splits.VINYALS):
        raise UsageError(f"Split files do not go with the split {split!r}.")
    if not 0 <= split_seed < 2**32:
        raise UsageError(f"Expected a seed of 0 … {2**32 - 1} for the split, got {split_seed}.")
    with disk_trouble(data_dir):
        folder = locate(data_dir)
        files = split_dir or folder / splits.FOLDER
        if split is None:
            split = splits.VINYALS if split_dir is not None or files.is_dir() else splits.SEEDED
        drawings = _drawings(folder)
    names = drawings.names
    if split == splits.VINYALS:
        rows = splits.vinyals(files, names)
    elif split == splits.BACKGROUND:
        rows = splits.background(drawings.background, len(names))
    else:
        rows = splits.seeded(split_seed, len(names))
    upright = ClassTable(drawings.images, tuple(f"{name}/{TURNS[0]}" for name in names))
    train, validation, test = (upright.take(part) for part in rows)
    if augment:
        train, validation = train.rotated(), validation.rotated()
    return Omniglot(train, validation, test, split)


def locate(data_dir: Path) -> Path:
    """The folder of the archives: `data_dir/omniglot` or `data_dir`."""
    places = [place for place in (data_dir / FOLDER, data_dir) if any(_archive(place, p).is_file() for p in PARTS)]
    complete = [place for place in places if all(_archive(place, part).is_file() for part in PARTS)]
    if complete:
        return complete[0]
    wanted = " and ".join(f"{part.root}.zip" for part in PARTS)
    if places:
        missing = next(part for part in PARTS if not _archive(places[0], part).is_file())
        raise DataError(
            f"Omniglot is incomplete: expected {wanted} in {places[0]}, {missing.root}.zip is missing.\n{FIX}"
        )
    state = "is an existing folder without them" if data_dir.is_dir() else "is not a folder"
    raise DataError(f"Omniglot was not found: expected {wanted} in {data_dir}, which {state}.\n{FIX}")


def _archive(folder: Path, part: Part) -> Path:
    return folder / f"{part.root}.zip"


def _source(folder: Path) -> str:
    """What tells the archives of a cache from others."""
    return " ".join(md5_of(_archive(folder, part)) for part in PARTS)


def _drawings(folder: Path) -> Drawings:
    source = _source(folder)
    kept = read_cache(folder, source)
    if kept is not None:
        return kept
    images, names = zip(*(read_archive(_archive(folder, part), part) for part in PARTS))
    twice = sorted(set(names[0]) & set(names[1]))
    if twice:
        raise DataError(f"{folder}: both archives hold {twice[0]}; one of them is not what its name says.\n{FIX}")
    drawings = Drawings(np.concatenate(images), names[0] + names[1], len(names[0]))
    write_cache(folder, source, drawings)
    return drawings


def check(data_dir: Path) -> list[FileCheck]:
    """Read both archives, the cache and the split files, and say of each whether it can be used."""
    folder = _there(data_dir)
    names: list[str] = []
    rows = [_check_archive(_archive(folder, part), part, names) for part in PARTS]
    if all(row.ok for row in rows):
        rows += _check_cache(folder) + _check_split(folder / splits.FOLDER, names)
    return rows


def _there(data_dir: Path) -> Path:
    try:
        return locate(data_dir)
    except DataError:
        return data_dir / FOLDER if (data_dir / FOLDER).is_dir() else data_dir


def _check_archive(path: Path, part: Part, names: list[str]) -> FileCheck:
    try:
        found = read_archive(path, part)[1]
    except DataError as error:
        return FileCheck(str(path), False, str(error).splitlines()[0].removeprefix(f"{path} is ").rstrip("."))
    names += found
    alphabets = len({name.split("/")[0] for name in found})
    message = f"{len(found):,} characters of {alphabets} alphabets, {len(found) * DRAWINGS:,} drawings"
    if (len(found), alphabets) != (part.characters, part.alphabets):
        message += f" (the official archive has {part.characters} of {part.alphabets})"
    got = md5_of(path)
    if got == part.download.md5:
        return FileCheck(str(path), True, f"{message}, the published archive")
    other = f"not the published archive: MD5 checksum {got}, published {part.download.md5}"
    return FileCheck(str(path), True, f"{message}; readable, but {other}")


def _check_cache(folder: Path) -> list[FileCheck]:
    if not (folder / CACHE).is_file():
        return []
    intact = read_cache(folder, _source(folder)) is not None
    message = "made from these archives, intact" if intact else "damaged or of other archives; it will be made again"
    return [FileCheck(str(folder / CACHE), True, message)]


def _check_split(folder: Path, names: list[str]) -> list[FileCheck]:
    if not folder.is_dir():
        return [FileCheck(str(folder), True, "missing, a seeded split serves")]
    try:
        sizes = [len(part) for part in splits.vinyals(folder, names)]
    except DataError as error:
        return [FileCheck(str(folder), False, str(error).splitlines()[0].rstrip("."))]
    official = all(md5_of(folder / file) == download.md5 for file, download in zip(splits.FILES, splits.DOWNLOADS))
    what = "the published files" if official else "well formed but not the published files"
    return [FileCheck(str(folder), True, "{:,} + {:,} + {:,} characters, ".format(*sizes) + what)]


def holdings(data_dir: Path) -> list[Holding]:
    """The archives at or in `data_dir`, by names and sizes."""
    folder = _there(data_dir)
    found = [_archive(folder, part) for part in PARTS if _archive(folder, part).is_file()]
    if not found:
        return [Holding(NAME, str(data_dir), 0, "not here; `tpc data get omniglot` downloads it (16 MB)")]
    missing = [f"{part.root}.zip" for part in PARTS if _archive(folder, part) not in found]
    split = "with the Vinyals split" if (folder / splits.FOLDER).is_dir() else "without the Vinyals split"
    status = f"incomplete: {', '.join(missing)} missing" if missing else f"complete, {split}"
    return [Holding(NAME, str(folder), sum(path.stat().st_size for path in found), status)]


def _load(data_dir: Path, limit_train: int | None, dtype: npt.DTypeLike) -> Dataset:
    del data_dir, limit_train, dtype
    raise UsageError("omniglot has too few images per class for classification; it is for few-shot learning.")


SOURCE = Source(
    name=NAME,
    summary="1,623 handwritten characters of 50 alphabets, 20 drawings each (Lake et al., 2015)",
    load=_load,
    check=check,
    holdings=holdings,
    downloads=(BACKGROUND.download, EVALUATION.download, *splits.DOWNLOADS),
)
