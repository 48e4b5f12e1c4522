"""Which characters of Omniglot are for training, validation and testing: three splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tpc.data.source import Download
from tpc.errors import DataError

VINYALS, BACKGROUND, SEEDED = "vinyals", "background", "seeded"
SPLITS = (VINYALS, BACKGROUND, SEEDED)
FOLDER = "vinyals_split"
FILES = ("train.txt", "val.txt", "test.txt")
SIZES = (1028, 172, 423)  # of the Vinyals split; the seeded split has the same of the official 1,623
MAX_FILE = 2**20
FIX = "  Fix: `tpc data get omniglot --data-dir DIR` downloads the split of Vinyals et al.; or take another split."
SITE = "https://raw.githubusercontent.com/jakesnell/prototypical-networks/master/data/omniglot/splits/vinyals/"
DOWNLOADS = (
    Download(f"omniglot/{FOLDER}/train.txt", SITE + "train.txt", "433d1fcc2b20dcee2983ceb524586f7f", 133_244),
    Download(f"omniglot/{FOLDER}/val.txt", SITE + "val.txt", "78c535fa427b12b6596908376a0b3f34", 21_312),
    Download(f"omniglot/{FOLDER}/test.txt", SITE + "test.txt", "43534e6d5f9e74acbb7de1b4874abad8", 50_372),
)

Rows = list[int]
Parts = tuple[Rows, Rows, Rows]
"""The numbers of the characters for training, validation and testing."""


def read_names(file: Path) -> list[str]:
    """The characters `alphabet/character` of a split file, each once, in the order of the file.

    A line is `alphabet/character/rotation`; the rotation may be missing and does not matter here, rotations are
    chosen when the data is loaded. Raises DataError where the file is missing or a line has another form.
    """
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_FILE + 1)
    except OSError as error:
        raise DataError(f"Cannot read the split file {file}: {error.strerror or error}.\n{FIX}") from error
    if len(raw) > MAX_FILE:
        raise DataError(f"{file} is too large for a split file: expected at most {MAX_FILE:,} bytes.\n{FIX}")
    names: dict[str, None] = {}
    for number, line in enumerate(raw.decode("utf-8", "replace").splitlines(), 1):
        found = re.fullmatch(r"([\w() -]+/character\d+)(/rot(000|090|180|270))?", line.strip())
        if not found and line.strip():
            raise DataError(
                f"{file}, line {number}: expected ALPHABET/characterNN/rotNNN, got {line.strip()[:60]!r}.\n{FIX}"
            )
        if found:
            names[found[1]] = None
    if not names:
        raise DataError(f"{file} names no characters.\n{FIX}")
    return list(names)


def vinyals(folder: Path, names: Sequence[str]) -> Parts:
    """The split of the three files in `folder`, as rows of `names`; characters it does not name are left out.

    Source: Vinyals et al., "Matching Networks for One Shot Learning" (NeurIPS 2016), in the files of Snell et al.,
    "Prototypical Networks for Few-shot Learning" (NeurIPS 2017). Raises DataError where a character is named
    twice or is not in the data.
    """
    number = {name: row for row, name in enumerate(names)}
    owner: dict[str, str] = {}
    parts: list[Rows] = []
    for file in FILES:
        listed = read_names(folder / file)
        unknown = [name for name in listed if name not in number]
        if unknown:
            raise DataError(
                f"{folder / file} names {len(unknown)} characters that the archives do not have, "
                f"such as {unknown[0]}.\n{FIX}"
            )
        for name in listed:
            if owner.setdefault(name, file) != file:
                raise DataError(f"{name} stands in two files of {folder}: {owner[name]} and {file}.\n{FIX}")
        parts.append([number[name] for name in listed])
    train, validation, test = parts
    return train, validation, test


def background(count: int, total: int) -> Parts:
    """The original split: the `count` characters of the background archive for training, the others for testing.

    It has no validation characters. Source: Lake, Salakhutdinov & Tenenbaum, Science 350 (2015).
    """
    return list(range(count)), [], list(range(count, total))


def seeded(seed: int, total: int) -> Parts:
    """Characters at random, by a stream that NumPy keeps fixed, in the proportions of the Vinyals split."""
    order = np.random.RandomState(seed).permutation(total)
    test = round(total * SIZES[2] / sum(SIZES))
    validation = round(total * SIZES[1] / sum(SIZES))
    cuts = np.split(order, [total - validation - test, total - test])
    train, middle, last = (sorted(part.tolist()) for part in cuts)
    return train, middle, last
