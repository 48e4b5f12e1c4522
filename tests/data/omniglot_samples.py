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
