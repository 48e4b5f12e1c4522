"""Small synthetic Omniglot archives in the official form: 1-bit PNG images of 105×105 pixels, 20 per character."""

import io
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

BACKGROUND = ("Greek/character01", "Greek/character02", "Greek/character03", "N_Ko/character01", "N_Ko/character02")
EVALUATION = ("Old_(Slavonic)/character01", "Old_(Slavonic)/character02", "Ge-ez/character01", "Ge-ez/character02")
PARTS = {"images_background": BACKGROUND, "images_evaluation": EVALUATION}


@cache
def drawing(name: str, number: int) -> np.ndarray:
    """A random drawing (105, 105) bool, True where the paper is white: a thick random walk."""
    rng = np.random.default_rng([number, *name.encode()])
    steps = np.cumsum(rng.integers(-6, 7, (12, 2)), axis=0) + 52
    white = np.ones((105, 105), dtype=bool)
    for row, column in np.clip(steps, 6, 95):
        white[row : row + 7, column : column + 3] = False
    return white


def png(pixels: np.ndarray, **options) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", **options)
    return stream.getvalue()


@cache
def members(root: str) -> dict[str, bytes]:
    """The files of one archive; folders have empty content."""
    files = {f"{root}/": b""}
    for index, name in enumerate(PARTS[root]):
        files[f"{root}/{name}/"] = b""
        for number in range(1, 21):
            files[f"{root}/{name}/{700 + index:04d}_{number:02d}.png"] = png(drawing(name, number))
    return files


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def write_omniglot(folder: Path) -> Path:
    for root in PARTS:
        write_zip(folder / f"{root}.zip", members(root))
    return folder


def write_split(folder: Path, train=BACKGROUND[1:] + EVALUATION[:1], val=BACKGROUND[:1], test=EVALUATION[1:]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for file, names in (("train.txt", train), ("val.txt", val), ("test.txt", test)):
        lines = [f"{name}/rot{turn:03d}\n" for name in names for turn in (0, 90, 180, 270)]
        (folder / file).write_text("".join(lines))
    return folder


# --- drawings that can be told apart ----------------------------------------------------------------------------------

LEGIBLE = {
    "images_background": tuple(f"{alphabet}/character0{k}" for alphabet in ("Greek", "N_Ko") for k in range(1, 7)),
    "images_evaluation": tuple(f"{alphabet}/character0{k}" for alphabet in ("Ge-ez", "Tifinagh") for k in range(1, 5)),
}


def legible(name: str, number: int) -> np.ndarray:
    """The strokes of a character, each of its drawings a little moved."""
    strokes = np.random.default_rng([7, *name.encode()]).integers(12, 82, (5, 2))
    moved = strokes + np.random.default_rng([number, *name.encode()]).integers(-5, 6, (5, 2))
    white = np.ones((105, 105), dtype=bool)
    for k, (row, column) in enumerate(moved):
        height, width = ((22, 8), (8, 22))[k % 2]
        white[row : row + height, column : column + width] = False
    return white


def write_legible(folder: Path) -> Path:
    """Archives of 20 characters of four alphabets, split into 12, 4 (Ge-ez) and 4 (Tifinagh)."""
    for root, names in LEGIBLE.items():
        files = {f"{root}/{n}/0001_{k:02d}.png": png(legible(n, k)) for n in names for k in range(1, 21)}
        write_zip(folder / f"{root}.zip", files)
    background, evaluation = LEGIBLE.values()
    write_split(folder / "vinyals_split", background, evaluation[:4], evaluation[4:])
    return folder
