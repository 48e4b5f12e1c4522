"""Omniglot from archives in the official form: images, rotations, splits, the cache, verify and ls."""

import numpy as np
import pytest

from tests.support import omniglot_samples
from tests.support.omniglot_samples import BACKGROUND, EVALUATION
from tpc import data
from tpc.data import omniglot, omniglot_cache
from tpc.errors import DataError, UsageError

EVERY = BACKGROUND + EVALUATION


@pytest.fixture
def folder(tmp_path):
    return omniglot_samples.write_omniglot(tmp_path / "omniglot")


def triangle_filter(size=105, small=28):
    """Bilinear interpolation with antialiasing as a matrix (28, 105): triangles as wide as the reduction."""
    scale = size / small
    centres = (np.arange(small) + 0.5) * scale
    weights = np.clip(1 - np.abs(np.arange(size) + 0.5 - centres[:, None]) / scale, 0, None)
    return weights / weights.sum(axis=1, keepdims=True)


def test_images_are_small_and_ink_is_255(folder):
    got = data.load_omniglot(folder, "background", augment=False)
    filtered = triangle_filter()
    for table, names in ((got.train, BACKGROUND), (got.test, EVALUATION)):
        assert (table.images.dtype, table.images.shape) == (np.uint8, (len(names), 20, 784))
        assert table.names == tuple(f"{name}/rot000" for name in sorted(names))
        for row, name in enumerate(sorted(names)):
            for number in (1, 7, 20):
                ink = 255.0 * ~omniglot_samples.drawing(name, number)
                expected = filtered @ ink @ filtered.T
                assert np.abs(table.images[row, number - 1].reshape(28, 28) - expected).max() <= 1
    assert got.train.alphabets == ("Greek",) * 3 + ("N_Ko",) * 2
    assert (got.train.input_dim, got.train.images_per_class) == (784, 20)
    with pytest.raises(ValueError, match="read-only"):
        got.test.images[0] = 0


def test_rotations_are_classes_of_training_and_validation(folder):
    upright = data.load_omniglot(folder, "seeded", augment=False)
    turned = data.load_omniglot(folder, "seeded")
    assert len(upright.validation) == 1
    for few, many in ((upright.train, turned.train), (upright.validation, turned.validation)):
        assert many.names == tuple(
            name.replace("rot000", f"rot{turn:03d}") for name in few.names for turn in (0, 90, 180, 270)
        )
        for row in range(len(few)):
            for turn in range(4):
                image = few.images[row, 3].reshape(28, 28)
                assert np.array_equal(many.images[4 * row + turn, 3].reshape(28, 28), np.rot90(image, turn))
    assert turned.test.names == upright.test.names


def characters(table):
    return {name.rpartition("/")[0] for name in table.names}


def test_splits_share_no_character(folder):
    omniglot_samples.write_split(folder / "vinyals_split")
    for split in ("vinyals", "background", "seeded"):
        got = data.load_omniglot(folder.parent, split)
        assert got.split == split
        parts = [characters(table) for table in (got.train, got.validation, got.test)]
        assert set().union(*parts) == set(EVERY)
        assert sum(map(len, parts)) == len(EVERY)
    assert len(data.load_omniglot(folder, "background").validation) == 0


def test_the_split_is_vinyals_where_its_files_are_there(folder, tmp_path):
    assert data.load_omniglot(folder).split == "seeded"
    elsewhere = omniglot_samples.write_split(tmp_path / "mine", test=EVERY[6:8])
    got = data.load_omniglot(folder, split_dir=elsewhere)
    assert (got.split, characters(got.test)) == ("vinyals", set(EVERY[6:8]))
    omniglot_samples.write_split(folder / "vinyals_split")
    got = data.load_omniglot(folder)
    assert (got.split, characters(got.validation)) == ("vinyals", set(BACKGROUND[:1]))
    assert got.train.names[:4:3] == ("Greek/character02/rot000", "Greek/character02/rot270")


def test_seeded_splits(folder):
    names = {seed: data.load_omniglot(folder, "seeded", split_seed=seed).test.names for seed in range(6)}
    assert names[3] == data.load_omniglot(folder, "seeded", split_seed=3).test.names
    assert len(set(names.values())) > 2
    train, validation, test = omniglot.splits.seeded(0, 1623)
    assert (len(train), len(validation), len(test)) == (1028, 172, 423)
    assert sorted(train + validation + test) == list(range(1623))


SPLIT_FILES = {
    "missing": (None, r"Cannot read the split file .*val.txt: No such file"),
    "empty": ("\n", r"val.txt names no characters"),
    "garbage": ("Greek/character01\n<html>\n", r"val.txt, line 2: expected ALPHABET/characterNN/rotNNN, got '<html>'"),
    "odd turn": ("Greek/character01/rot045\n", "line 1: expected"),
    "traversal": ("../Greek/character01\n", "line 1: expected"),
    "unknown": ("Greek/character77/rot000\n", "names 1 characters .* do not have, such as Greek/character77"),
    "twice": ("Ge-ez/character01/rot090\n", r"Ge-ez/character01 stands in two files of .*: val.txt and test.txt"),
    "huge": ("x" * (2**20 + 1), "too large for a split file"),
}


@pytest.mark.parametrize("case", SPLIT_FILES)
def test_split_files_refused(folder, case):
    content, message = SPLIT_FILES[case]
    split = omniglot_samples.write_split(folder / "vinyals_split")
    (split / "val.txt").unlink()
    if content is not None:
        (split / "val.txt").write_text(content)
    with pytest.raises(DataError, match=message) as caught:
        data.load_omniglot(folder)
    assert "Fix: `tpc data get omniglot" in str(caught.value)
    checks = data.verify("omniglot", folder)
    assert [row.ok for row in checks if row.file == str(split)] == [False]


def test_wrong_calls(folder):
    with pytest.raises(UsageError, match="Unknown split 'mine': expected one of vinyals, background, seeded"):
        data.load_omniglot(folder, "mine")
    with pytest.raises(UsageError, match="do not go with the split 'background'"):
        data.load_omniglot(folder, "background", split_dir=folder)
    with pytest.raises(UsageError, match=r"Expected a seed of 0 … 4294967295 for the split, got -1"):
        data.load_omniglot(folder, "seeded", split_seed=-1)
    with pytest.raises(UsageError, match="it is for few-shot learning"):
        data.load("omniglot", folder)


# The cache.


def test_the_cache_replaces_the_archives(folder, monkeypatch):
    first = data.load_omniglot(folder, "background")
    monkeypatch.delattr(omniglot, "read_archive")
    second = data.load_omniglot(folder, "background")
    assert np.array_equal(first.train.images, second.train.images)
    assert (first.train.names, first.test.names) == (second.train.names, second.test.names)
    assert sorted(path.name for path in folder.iterdir()) == [
        "images_background.zip",
        "images_evaluation.zip",
        "omniglot-28x28.npz",
    ]


@pytest.mark.parametrize("kind", ["flipped", "cut", "empty", "garbage"])
def test_a_damaged_cache_is_made_again(folder, kind):
    first = data.load_omniglot(folder, "background")
    file = folder / omniglot_cache.FILE
    whole = file.read_bytes()
    for position in np.linspace(0, len(whole) - 1, 25).astype(int):
        flipped = whole[:position] + bytes([whole[position] ^ 0x10]) + whole[position + 1 :]
        damaged = {"flipped": flipped, "cut": whole[:position], "empty": b"", "garbage": b"\x93NUMPY" * 99}[kind]
        file.write_bytes(damaged)
        again = data.load_omniglot(folder, "background")
        assert np.array_equal(first.train.images, again.train.images)
        assert first.train.names == again.train.names
        if kind in ("empty", "garbage"):
            break


def test_a_cache_that_tells_something_else_is_not_believed(folder):
    good = data.load_omniglot(folder, "background", augment=False)
    with np.load(folder / omniglot_cache.FILE) as arrays:
        content = dict(arrays)
    for name, value in {
        "images": content["images"] ^ 1,
        "names": content["names"][::-1],
        "background": np.int64(4),
        "digest": content["digest"][:-1],
    }.items():
        np.savez_compressed(folder / omniglot_cache.FILE, **(content | {name: value}))
        assert np.array_equal(data.load_omniglot(folder, "background", augment=False).train.images, good.train.images)
    objects = np.array([print], dtype=object)
    np.savez_compressed(folder / omniglot_cache.FILE, **(content | {"images": objects}))
    assert np.array_equal(data.load_omniglot(folder, "background", augment=False).train.images, good.train.images)


def test_other_archives_make_another_cache(folder):
    data.load_omniglot(folder, "background")
    files = dict(omniglot_samples.members("images_background"))
    for name in [name for name in files if "N_Ko" in name]:
        del files[name]
    omniglot_samples.write_zip(folder / "images_background.zip", files)
    got = data.load_omniglot(folder, "background", augment=False)
    assert set(got.train.alphabets) == {"Greek"}


def test_a_folder_that_cannot_be_written_needs_no_cache(folder):
    (folder / omniglot_cache.FILE).mkdir()
    assert len(data.load_omniglot(folder, "background").train) == 20
    assert not list(folder.glob("*.tmp"))


# What is there.


def test_nothing_there(tmp_path, folder):
    with pytest.raises(DataError, match=r"expected images_background.zip and .* in .*nowhere, which is not"):
        data.load_omniglot(tmp_path / "nowhere")
    (folder / "images_evaluation.zip").unlink()
    with pytest.raises(DataError, match=r"incomplete: expected .* images_evaluation.zip is missing.\n  Fix: `tpc data"):
        data.load_omniglot(tmp_path)
    with pytest.raises(DataError, match=r"Cannot look into .*: File name too long"):
        data.load_omniglot(tmp_path / ("x" * 5000))


def test_verify(folder):
    background, evaluation, split = data.verify("omniglot", folder.parent)
    assert all(row.ok for row in (background, evaluation, split))
    assert background.file == str(folder / "images_background.zip")
    assert background.message.startswith(
        "5 characters of 2 alphabets, 100 drawings (the official archive has 964 of 30); "
        "readable, but not the published archive: MD5 checksum "
    )
    assert split.message == "missing, a seeded split serves"
    omniglot_samples.write_split(folder / "vinyals_split")
    data.load_omniglot(folder)
    cache, split = data.verify("omniglot", folder)[2:]
    assert cache == (str(folder / omniglot_cache.FILE), True, "made from these archives, intact")
    assert split.message == "5 + 1 + 3 characters, well formed but not the published files"
    (folder / omniglot_cache.FILE).write_bytes(b"")
    assert data.verify("omniglot", folder)[2].message.startswith("damaged or of other archives")
    (folder / "images_evaluation.zip").write_bytes(b"PK")
    assert [row.ok for row in data.verify("omniglot", folder)] == [True, False]
    assert data.verify("omniglot", folder)[1].message == "truncated or corrupted: File is not a zip file"
    (folder / "images_background.zip").unlink()
    assert data.verify("omniglot", folder)[0][1:] == (False, "missing")


def test_ls(folder, tmp_path):
    def status(place):
        return [(row.path, row.status) for row in data.ls(place) if row.dataset == "omniglot"]

    assert status(tmp_path) == [(str(folder), "complete, without the Vinyals split")]
    omniglot_samples.write_split(folder / "vinyals_split")
    assert status(folder) == [(str(folder), "complete, with the Vinyals split")]
    (folder / "images_background.zip").rename(folder / "images_background.zip.part")
    missing, part = status(tmp_path)
    assert missing == (str(folder), "incomplete: images_background.zip missing")
    assert part == (str(folder / "images_background.zip.part"), "partial download, 0 %")
    assert "`tpc data get omniglot` downloads it (16 MB)" in status(tmp_path / "nowhere")[0][1]


REAL = data.default_data_dir() / "omniglot"


@pytest.mark.skipif(not REAL.is_dir(), reason="TPC_DATA_DIR names no folder with the real Omniglot")
def test_the_real_data():
    background, evaluation = data.verify("omniglot")[:2]
    assert background.message.startswith("964 characters of 30 alphabets, 19,280 drawings;")
    assert evaluation.message.startswith("659 characters of 20 alphabets, 13,180 drawings;")
    sizes = {"background": (964, 0, 659), "seeded": (1028, 172, 423)}
    if (REAL / "vinyals_split").is_dir():
        sizes["vinyals"] = (1028, 172, 423)
    for split, expected in sizes.items():
        got = data.load_omniglot(REAL, split)
        assert (len(got.train), len(got.validation), len(got.test)) == (4 * expected[0], 4 * expected[1], expected[2])
    everything = data.load_omniglot(REAL, "background", augment=False)
    ink = np.concatenate([everything.train.images, everything.test.images]) / 255
    assert 0.07 < ink.mean() < 0.09  # thin strokes on a large page
    assert ink.max() == 1
    assert (ink.max(axis=2) > 0.2).all()  # no drawing is blank
