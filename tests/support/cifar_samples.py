"""Small synthetic data sets in the official formats of CIFAR-10."""

import pickle
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

WIDTH = 3072
NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
BATCHES = [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]


@dataclass(frozen=True)
class Sample:
    """Six batches of pixels (n, 3072) uint8 and labels (n,)."""

    pixels: list[np.ndarray]
    labels: list[list[int]]

    @property
    def train(self) -> tuple[np.ndarray, np.ndarray]:
        return np.concatenate(self.pixels[:5]), np.concatenate(self.labels[:5])


def make_sample(per_batch: int = 6, seed: int = 0) -> Sample:
    rng = np.random.default_rng(seed)
    pixels = [rng.integers(0, 256, (per_batch, WIDTH), dtype=np.uint8) for _ in BATCHES]
    labels = [rng.integers(0, 10, per_batch).tolist() for _ in BATCHES]
    return Sample(pixels, labels)


def batch_dict(pixels: np.ndarray, labels: list[int], name: str) -> dict[bytes, object]:
    filenames = [f"{NAMES[label]}_{index:05d}.png".encode() for index, label in enumerate(labels)]
    return {b"batch_label": name.encode(), b"labels": labels, b"data": pixels, b"filenames": filenames}


def write_python(sample: Sample, root: Path, protocol: int = 2) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, pixels, labels in zip(BATCHES, sample.pixels, sample.labels):
        (folder / name).write_bytes(pickle.dumps(batch_dict(pixels, labels, name), protocol))
    meta = {b"num_cases_per_batch": len(sample.labels[0]), b"num_vis": WIDTH}
    meta[b"label_names"] = [name.encode() for name in NAMES]
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, protocol))
    return folder


def write_python2(sample: Sample, root: Path) -> Path:
    """The same folder in the spelling of Python 2, as the official files have it."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, pixels, labels in zip(BATCHES, sample.pixels, sample.labels):
        (folder / name).write_bytes(python2_batch(pixels, labels, name))
    names = b"".join(f"S'{name}'\np{index + 5}\na".encode() for index, name in enumerate(NAMES))
    meta = b"(dp1\nS'num_cases_per_batch'\np2\nI6\nsS'label_names'\np3\n(lp4\n" + names + b"sS'num_vis'\nI3072\ns."
    (folder / "batches.meta").write_bytes(meta)
    return folder


def python2_batch(pixels: np.ndarray, labels: list[int], name: str) -> bytes:
    """Protocol 2 by Python 2: byte strings without an encoding and the module `numpy.core`."""

    def short(text: bytes) -> bytes:
        return b"U" + bytes([len(text)]) + text

    raw = pixels.tobytes()
    rows = len(pixels).to_bytes(2, "little")
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x08cnumpy\nndarray\nq\x09K\x00\x85q\x0a" + short(b"b") + b"\x87Rq\x0b"
        b"(K\x01M" + rows + b"M\x00\x0c\x86cnumpy\ndtype\nq\x0c" + short(b"u1") + b"K\x00K\x01\x87Rq\x0d"
        b"(K\x03" + short(b"|") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
        b"T" + len(raw).to_bytes(4, "little") + raw + b"tb"
    )
    numbers = b"".join(b"K" + bytes([label]) for label in labels)
    files = b"".join(short(f"{NAMES[label]}_{index}.png".encode()) for index, label in enumerate(labels))
    return (
        b"\x80\x02}q\x01(" + short(b"batch_label") + b"q\x02" + short(name.encode()) + b"q\x03"
        + short(b"labels") + b"q\x04]q\x05(" + numbers + b"e"
        + short(b"data") + b"q\x06" + array
        + short(b"filenames") + b"q\x07]q\x0e(" + files + b"eu."
    )  # fmt: skip


def write_binary(sample: Sample, root: Path) -> Path:
    folder = root / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name, pixels, labels in zip(BATCHES, sample.pixels, sample.labels):
        records = np.column_stack([np.array(labels, dtype=np.uint8), pixels])
        (folder / f"{name}.bin").write_bytes(records.tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(NAMES) + "\n\n")
    return folder


def pack(folder: Path, archive: Path) -> Path:
    """A .tar.gz archive of a folder, its files in another order than the batches."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name, recursive=False)
        for file in sorted(folder.iterdir(), reverse=True):
            tar.add(file, arcname=f"{folder.name}/{file.name}")
    return archive


def write_layout(sample: Sample, layout: str, root: Path) -> Path:
    """Write the sample and return the path that is given as data_dir."""
    if layout == "python2 folder":
        return write_python2(sample, root)
    folder = write_binary(sample, root) if "binary" in layout else write_python(sample, root)
    if "archive" not in layout:
        return folder if "folder itself" in layout else root
    archive = root / ("cifar-10-binary.tar.gz" if "binary" in layout else "cifar-10-python.tar.gz")
    pack(folder, archive)
    shutil.rmtree(folder)
    return archive if "archive itself" in layout else root
