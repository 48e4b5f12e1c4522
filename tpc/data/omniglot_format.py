"""The official archives of Omniglot: drawings of characters as PNG files, read from the zip and made 28×28."""

from __future__ import annotations

import io
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tpc.data.dataset import Pixels
from tpc.data.source import Download
from tpc.data.zipped import Limits, read_zip
from tpc.errors import DataError

FOLDER = "omniglot"
SITE = "https://github.com/brendenlake/omniglot/raw/master/python/"
OFFICIAL_SIDE = 105
SIDE = 28
DRAWINGS = 20  # of every character, each by another person
FIX = "  Fix: `tpc data get omniglot --data-dir DIR` downloads the official archives (16 MB), used as they are."

# the official archives have 9.5 and 6.5 MB, 20,275 entries at most, none above 522 bytes
LIMITS = Limits(archive=2**24, entries=40_000, entry=2**16, total=2**26)
PNG = b"\x89PNG\r\n\x1a\n"
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


@dataclass(frozen=True)
class Part:
    """One of the two official archives, with the number of its characters and of their alphabets."""

    root: str
    characters: int
    alphabets: int
    download: Download


BACKGROUND = Part(
    "images_background",
    964,
    30,
    Download(
        f"{FOLDER}/images_background.zip",
        SITE + "images_background.zip",
        "68d2efa1b9178cc56df9314c21c6e718",
        9_464_212,
    ),
)
EVALUATION = Part(
    "images_evaluation",
    659,
    20,
    Download(
        f"{FOLDER}/images_evaluation.zip",
        SITE + "images_evaluation.zip",
        "6b91aef0f799c5bb55b94e3f2daec811",
        6_462_886,
    ),
)
PARTS = (BACKGROUND, EVALUATION)


def read_archive(path: Path, part: Part) -> tuple[Pixels, tuple[str, ...]]:
    """The drawings (C, 20, 784) of an official archive and the names `alphabet/character` of its C characters.

    Drawings are made 28×28 by bilinear interpolation with antialiasing, as Pillow does it, and inverted:
    255 is ink. Raises DataError where the archive or a drawing in it is not as published.
    """
    pattern = re.compile(rf"{part.root}/([\w() -]+/character\d+)/\d+_\d+\.png")
    characters: dict[str, list[Pixels]] = {}
    for name, raw in read_zip(path, _is_image, LIMITS, FIX):
        found = pattern.fullmatch(name)
        if not found:
            expected = f"{part.root}/ALPHABET/characterNN/NNNN_NN.png"
            raise DataError(f"{path} is not {part.root}.zip: expected drawings {expected}, got {name!r}.\n{FIX}")
        characters.setdefault(found[1], []).append(decode(raw, f"{name} in {path}"))
    if not characters:
        raise DataError(f"{path} is not {part.root}.zip: it holds no drawings.\n{FIX}")
    for name, drawings in characters.items():
        if len(drawings) != DRAWINGS:
            raise DataError(
                f"{path} is incomplete: expected {DRAWINGS} drawings of {name}, got {len(drawings)}.\n{FIX}"
            )
    return np.array(list(characters.values())), tuple(characters)


def _is_image(name: str) -> bool:
    return name.lower().endswith(".png") and not name.startswith("__MACOSX/")  # what macOS adds to archives


def decode(raw: bytes, label: str) -> Pixels:
    """One drawing (784,) from the bytes of its PNG file; DataError where it is not a drawing of Omniglot."""
    from PIL import Image  # only this needs it

    side = OFFICIAL_SIDE
    expected = f"expected a black and white PNG image of {side}×{side} pixels"
    if len(raw) < len(PNG) + 16 or not raw.startswith(PNG):
        raise DataError(f"{label} is corrupted: {expected}, got no PNG file.\n{FIX}")
    width, height = struct.unpack(">II", raw[16:24])
    if (width, height) != (side, side):
        raise DataError(f"{label} is not a drawing of Omniglot: {expected}, got {width}×{height} pixels.\n{FIX}")
    try:
        with Image.open(io.BytesIO(raw), formats=["PNG"]) as image:
            if image.mode != "1":
                raise DataError(f"{label} is not a drawing of Omniglot: {expected}, got mode {image.mode}.\n{FIX}")
            small = image.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    except UNREADABLE as error:
        raise DataError(f"{label} is corrupted: {expected}, got one that cannot be read ({error}).\n{FIX}") from error
    ink: Pixels = 255 - np.asarray(small, dtype=np.uint8).reshape(-1)
    return ink
