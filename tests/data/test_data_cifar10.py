"""CIFAR-10 from every official layout, and clear refusals of everything that is not one."""

import os
import pickle
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.support import cifar_samples
from tpc import data
from tpc.data.containers import MAX_FILE
from tpc.errors import DataError, UsageError

MEAN = np.array([0.49137255, 0.48235294, 0.44666667])
STD = np.array([0.24705882, 0.24352941, 0.26156863])
SAMPLE = cifar_samples.make_sample()
write = partial(cifar_samples.write_layout, SAMPLE)


def paper_normalisation(pixels):
    planes = pixels.reshape(-1, 3, 1024) / 255.0
    return ((planes - MEAN[:, None]) / STD[:, None]).reshape(-1, 3072)


LAYOUTS = [
    "python2 folder",
    *(
        f"{kind} {place}"
        for kind in ("python", "binary")
        for place in ("parent", "folder itself", "archive", "archive itself")
    ),
]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data(tmp_path, layout):
    got = data.load("cifar10", write(layout, tmp_path))
    pixels, labels = SAMPLE.train
    assert got.train_x.dtype == np.float32
    assert got.train_y.dtype == got.test_y.dtype == np.int64
    assert np.abs(got.train_x - paper_normalisation(pixels)).max() < 1e-6
    assert np.abs(got.test_x - paper_normalisation(SAMPLE.pixels[5])).max() < 1e-6
    assert got.train_y.tolist() == labels.tolist()
    assert got.test_y.tolist() == SAMPLE.labels[5]
    assert got.class_names == tuple(cifar_samples.NAMES)
    assert (got.name, got.input_dim, got.classes) == ("cifar10", 3072, 10)
    assert got.normalisation.mean == tuple(MEAN)
    assert got.normalisation.std == tuple(STD)
    assert "0.49137255" in str(got.normalisation)


@pytest.mark.parametrize("limit", [1, 6, 7, 30])
@pytest.mark.parametrize("layout", ["python parent", "binary archive"])
def test_limit_keeps_the_first_images(tmp_path, layout, limit):
    place = write(layout, tmp_path)
    whole, part = data.load("cifar10", place), data.load("cifar10", place, limit_train=limit)
    assert np.array_equal(part.train_x, whole.train_x[:limit])
    assert np.array_equal(part.train_y, whole.train_y[:limit])
    assert np.array_equal(part.test_x, whole.test_x)


@pytest.mark.parametrize("limit", [31, 10**9])
def test_limit_beyond_the_data(tmp_path, limit):
    with pytest.raises(UsageError, match=f"1 … 30 training images for cifar10, got {limit:,}"):
        data.load("cifar10", write("python parent", tmp_path), limit_train=limit)


def test_double_precision(tmp_path):
    got = data.load("cifar10", write("python parent", tmp_path), dtype=np.float64)
    assert got.train_x.dtype == np.float64
    assert np.abs(got.train_x - paper_normalisation(SAMPLE.train[0])).max() < 1e-13


def test_arrays_are_read_only(tmp_path):
    got = data.load("cifar10", write("python parent", tmp_path))
    with pytest.raises(ValueError, match="read-only"):
        got.train_x[0] = 0


def test_a_complete_archive_beats_an_incomplete_folder(tmp_path):
    folder = cifar_samples.write_python(SAMPLE, tmp_path)
    cifar_samples.pack(folder, tmp_path / "cifar-10-python.tar.gz")
    (folder / "data_batch_2").unlink()
    assert len(data.load("cifar10", tmp_path).train_x) == 30


def test_memory_stays_near_the_result(tmp_path):
    sample = cifar_samples.make_sample(per_batch=400)
    cifar_samples.write_python(sample, tmp_path, protocol=4)
    tracemalloc.start()
    got = data.load("cifar10", tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    result = got.train_x.nbytes + got.test_x.nbytes
    assert peak < 1.2 * result


def test_class_names_may_be_missing(tmp_path):
    folder = cifar_samples.write_python(SAMPLE, tmp_path)
    (folder / "batches.meta").unlink()
    assert data.load("cifar10", tmp_path).class_names == tuple(cifar_samples.NAMES)


# What is refused: a change to the folder of Python pickles, and what the message says.


def replace(name, **changes):
    def change(folder):
        batch = pickle.loads((folder / name).read_bytes(), encoding="bytes")
        batch.update({key.encode(): value for key, value in changes.items()})
        (folder / name).write_bytes(pickle.dumps(batch))

    return change


def rewrite(name, edit):
    def change(folder):
        (folder / name).write_bytes(edit((folder / name).read_bytes()))

    return change


def remove(*names):
    def change(folder):
        for name in names:
            (folder / name).unlink()

    return change


class Hostile:
    def __reduce__(self):
        return os.mkdir, ("hostile-pickle-ran",)


REFUSED = {
    "missing": (remove("data_batch_4", "test_batch"), "incomplete: data_batch_4, test_batch missing"),
    "truncated": (rewrite("data_batch_3", lambda raw: raw[:-500]), "data_batch_3 is truncated or corrupted"),
    "cut in the middle": (
        rewrite("test_batch", lambda raw: raw[: len(raw) // 2]),
        "test_batch is truncated or corr",
    ),
    "empty": (
        rewrite("data_batch_1", lambda raw: b""),
        "data_batch_1 is truncated or corrupted: pickle exhausted",
    ),
    "garbage": (
        rewrite("data_batch_1", lambda raw: b"\x00" * 999),
        "data_batch_1 is truncated or corr",
    ),
    "html": (
        rewrite("data_batch_1", lambda raw: b"<html>Not found</html>"),
        "data_batch_1 is truncated or corrupted",
    ),
    "too large": (rewrite("data_batch_1", lambda raw: b"\x00" * (MAX_FILE + 1)), "data_batch_1 is too large"),
    "narrow": (
        replace("data_batch_2", data=SAMPLE.pixels[1][:, :3000]),
        r"shape \(images, 3072\), got uint8 of shape",
    ),
    "flat": (replace("data_batch_2", data=SAMPLE.pixels[1].ravel()), r"got uint8 of shape \(18432,\)"),
    "signed": (
        replace("data_batch_2", data=SAMPLE.pixels[1].astype(np.int8)),
        "expected 'data' as uint8 .* got int8",
    ),
    "no data": (replace("data_batch_2", data=None), "expected 'data' as uint8 .* got NoneType"),
    "floats": (replace("data_batch_2", data=SAMPLE.pixels[1] / 255), "type 'f8' is not allowed"),
    "fewer labels": (replace("data_batch_2", labels=[1, 2]), "expected 6 labels, one per image, got 2"),
    "label 10": (
        replace("data_batch_2", labels=[0, 1, 10, 2, 3, 4]),
        "expected labels 0 … 9, got 10 for image 2",
    ),
    "label -1": (replace("data_batch_2", labels=[-1] * 6), "expected labels 0 … 9, got -1 for image 0"),
    "huge label": (
        replace("data_batch_2", labels=[2**200] * 6),
        "expected labels 0 … 9, got 1606938044258990275",
    ),
    "text labels": (replace("data_batch_2", labels=["cat"] * 6), "expected 'labels' as a list of integers"),
    "no labels": (
        replace("data_batch_2", labels=None),
        "expected 'labels' as a list of integers, got NoneType",
    ),
    "no images": (replace("data_batch_2", data=SAMPLE.pixels[1][:0], labels=[]), "buffer|no images"),
    "list": (rewrite("data_batch_2", lambda raw: pickle.dumps([1])), "holds a list and not a dictionary"),
    "hostile": (
        replace("data_batch_2", labels=Hostile()),
        r"names '(posix|nt)\.mkdir', which is not allowed",
    ),
    "hostile names": (
        replace("batches.meta", label_names=Hostile()),
        r"batches.meta .* names '(posix|nt)\.mkdir'",
    ),
    "nine names": (
        replace("batches.meta", label_names=[b"a"] * 9),
        "expected the names of 10 classes, got 9",
    ),
    "no names": (replace("batches.meta", label_names=7), "expected 'label_names' as a list of strings"),
    "odd names": (replace("batches.meta", label_names=[b"\x1b[2J"] * 10), "expected the names of 10 classes"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    change, message = REFUSED[case]
    change(cifar_samples.write_python(SAMPLE, tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        data.load("cifar10", tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert not (tmp_path / "hostile-pickle-ran").exists()
    assert not all(row.ok for row in data.verify("cifar10", tmp_path))


def test_an_array_of_labels_is_admitted(tmp_path):
    replace("data_batch_1", labels=np.array([0, 1, 2, 3, 4, 9]))(cifar_samples.write_python(SAMPLE, tmp_path))
    assert data.load("cifar10", tmp_path).train_y[:6].tolist() == [0, 1, 2, 3, 4, 9]


def test_nothing_there(tmp_path):
    with pytest.raises(DataError, match=r"was not found: .*cifar-10-batches-py/.* which is an existing folder without"):
        data.load("cifar10", tmp_path)
    with pytest.raises(DataError, match=r"does not exist\.\n  Fix: `tpc data get cifar10"):
        data.load("cifar10", tmp_path / "nowhere")
    other = tmp_path / "other.tar.gz"
    other.write_bytes(b"")
    with pytest.raises(DataError, match="not a CIFAR-10 archive: expected cifar-10-python"):
        data.load("cifar10", other)


def test_binary_refusals(tmp_path):
    folder = cifar_samples.write_binary(SAMPLE, tmp_path)
    file = folder / "data_batch_3.bin"
    raw = file.read_bytes()
    file.write_bytes(raw[:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin is truncated .* multiple of 3,073 bytes"):
        data.load("cifar10", tmp_path)
    file.write_bytes(b"")
    with pytest.raises(DataError, match="holds no images"):
        data.load("cifar10", tmp_path)
    file.write_bytes(b"\x0a" + raw[1:])
    with pytest.raises(DataError, match="expected labels 0 … 9, got 10 for image 0"):
        data.load("cifar10", tmp_path)


def test_a_binary_file_cut_at_a_record_is_found_beside_the_others(tmp_path):
    folder = tmp_path / "cifar-10-batches-bin"
    folder.mkdir()
    for name in cifar_samples.BATCHES:
        with (folder / f"{name}.bin").open("wb") as stream:
            stream.truncate((9_000 if name == "data_batch_5" else 10_000) * 3073)
    with pytest.raises(DataError, match=r"data_batch_5.bin is truncated .* expected 30,730,000 bytes like the others"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize("size", [0, 3073, 2**33])
def test_a_last_file_of_another_size(tmp_path, size):
    file = cifar_samples.write_binary(SAMPLE, tmp_path) / "data_batch_5.bin"
    os.truncate(file, size)
    if size == 3073:  # any whole number of images is a batch
        assert len(data.load("cifar10", tmp_path).train_x) == 25
        return
    with pytest.raises(DataError, match=r"data_batch_5.bin is (too large|truncated or corrupted: it holds no images)"):
        data.load("cifar10", tmp_path)


def test_a_path_the_system_refuses():
    for use in (lambda path: data.load("cifar10", path), lambda path: data.verify("cifar10", path), data.ls):
        with pytest.raises(DataError, match=r"Cannot look into .*: File name too long"):
            use(Path("x" * 5000))


# verify and ls.


def test_verify_tells_file_by_file(tmp_path):
    folder = cifar_samples.write_python(SAMPLE, tmp_path)
    rows = data.verify("cifar10", tmp_path)
    assert len(rows) == 7
    assert all(row.ok for row in rows)
    assert rows[0].file == str(folder / "data_batch_1")
    assert rows[0].message == "6 images, well formed but not the official file"
    (folder / "batches.meta").unlink()
    (folder / "data_batch_5").unlink()
    (folder / "test_batch").write_bytes(b"")
    rows = {Path(row.file).name: row for row in data.verify("cifar10", folder)}
    assert (rows["batches.meta"].ok, rows["batches.meta"].message) == (
        True,
        "missing, the standard class names serve",
    )
    assert (rows["data_batch_5"].ok, rows["data_batch_5"].message) == (False, "missing")
    assert not rows["test_batch"].ok
    assert rows["test_batch"].message.startswith("truncated or corrupted: pickle exhausted")


def test_verify_compares_the_archive_with_the_published_checksum(tmp_path):
    write("binary archive", tmp_path)
    rows = data.verify("cifar10", tmp_path)
    assert len(rows) == 8
    assert all(row.ok for row in rows)
    assert "not the published archive" in rows[0].message
    assert "c32a1d4ab5d03f1284b67883e8d87530" in rows[0].message
    assert data.verify("cifar10", tmp_path / "nowhere")[0].ok is False


def test_ls_tells_what_is_there(tmp_path):
    rows = {row.path: row for row in data.ls(tmp_path)}
    assert rows["scikit-learn"].dataset == "digits"
    assert rows[str(tmp_path)].status.startswith("not here")
    folder = cifar_samples.write_python(SAMPLE, tmp_path)
    archive = cifar_samples.pack(folder, tmp_path / "cifar-10-python.tar.gz")
    (tmp_path / "cifar-10-python.tar.gz.part").write_bytes(bytes(1_704_981))
    (folder / "data_batch_5").unlink()
    rows = {row.path: row for row in data.ls(tmp_path)}
    assert rows[str(folder)].status == "incomplete: data_batch_5 missing"
    assert rows[str(folder)].bytes == sum(file.stat().st_size for file in folder.iterdir())
    assert rows[str(archive)].status == "archive, not of the published 170,498,071 bytes"
    assert rows[f"{archive}.part"].status == "partial download, 1 %"


@pytest.mark.skipif("TPC_DATA_DIR" not in os.environ, reason="TPC_DATA_DIR names no folder with the real CIFAR-10")
def test_the_real_data():
    got = data.load("cifar10", limit_train=20_000)
    assert got.train_x.shape == (20_000, 3072)
    assert got.test_x.shape == (10_000, 3072)
    assert np.bincount(got.test_y).tolist() == [1_000] * 10
    assert np.bincount(got.train_y, minlength=10).min() > 1_800
    assert abs(float(got.train_x.mean(dtype=np.float64))) < 0.02
    assert abs(float(got.train_x.std(dtype=np.float64)) - 1) < 0.02
    assert all(row.ok for row in data.verify("cifar10"))
