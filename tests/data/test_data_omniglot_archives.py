"""Omniglot archives that are truncated, damaged, hostile or of something else: refused, nothing ever unpacked."""

import struct
import zipfile

import numpy as np
import pytest

from tests.support import omniglot_samples
from tests.support.omniglot_samples import png
from tpc import data
from tpc.data import omniglot_format
from tpc.data.omniglot_format import LIMITS, decode
from tpc.errors import DataError

ROOT = "images_background"
FILES = omniglot_samples.members(ROOT)
FIRST = f"{ROOT}/Greek/character01/0700_01.png"
PAPER = np.ones((105, 105), dtype=bool)


def with_files(**options):
    """A change to the archive: files added, replaced, or removed where the content is None."""

    def change(path):
        files = {name: content for name, content in (FILES | options["files"]).items() if content is not None}
        omniglot_samples.write_zip(path, files)

    return change


def with_entry(name, content=b"x", *, mode=0o100644, packing=zipfile.ZIP_DEFLATED):
    def change(path):
        with zipfile.ZipFile(path, "a") as archive:
            info = zipfile.ZipInfo("placeholder")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, packing
            archive.writestr(info, content)

    return change


def twice(path):
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(FIRST, FILES[FIRST])


def encrypted(path):
    """Sets the flag of the first entry, in its own header and in the directory."""
    raw = bytearray(path.read_bytes())
    raw[6] |= 1
    raw[raw.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(raw)


def announced_smaller(path):
    """A bomb: an entry that unpacks to more than the size announced in its header and in the directory."""
    bomb = bytes(2**22)
    with_entry(f"{ROOT}/Greek/character01/0700_99.png", bomb)(path)
    raw = path.read_bytes()
    path.write_bytes(raw.replace(struct.pack("<I", len(bomb)), struct.pack("<I", 300)))


REFUSED = {
    "parent folder": (with_entry("../../escaped.png"), "names a place outside of its folder"),
    "parent folder inside": (with_entry(f"{ROOT}/../../escaped.png"), "names a place outside of its folder"),
    "absolute": (with_entry("/tmp/escaped.png"), "'/tmp/escaped.png' names a place outside"),
    "drive": (with_entry("C:/escaped.png"), "names a place outside"),
    "backslash": (with_entry("..\\escaped.png"), "names a place outside"),
    "control characters": (with_entry("\x1b[2J.png"), r"'\\x1b\[2J.png' names a place outside"),
    "link": (with_entry(f"{ROOT}/link.png", b"/etc/passwd", mode=0o120777), "is a link or a device"),
    "device": (with_entry(f"{ROOT}/device.png", b"", mode=0o020644), "is a link or a device"),
    "twice": (twice, "holds '.*0700_01.png' twice"),
    "encrypted": (encrypted, "is encrypted"),
    "other packing": (with_entry(f"{ROOT}/x.png", packing=zipfile.ZIP_BZIP2), "in another way than deflated"),
    "large entry": (
        with_entry("readme.txt", bytes(2**16 + 1)),
        "unpacks to 65,537 bytes, above 65,536",
    ),
    "announced smaller": (announced_smaller, "truncated or corrupted: Bad CRC-32"),
    "large in all": (
        with_files(files={f"{ROOT}/{number}.txt": bytes(2**16) for number in range(2**10 + 1)}),
        r"unpacks to 67,[\d,]+ bytes, above 67,108,864",
    ),
    "many entries": (
        with_files(files={f"{ROOT}/{number}/": b"" for number in range(40_001)}),
        r"expected at most 40,000 entries, got 40,\d+",
    ),
    "large archive": (
        lambda path: path.write_bytes(bytes(LIMITS.archive + 1)),
        "expected at most 16,777,216 bytes, got 16,777,217",
    ),
    "no zip": (lambda path: path.write_bytes(b"<html>Not found</html>"), "truncated or corrupted: File is not a zip"),
    "no drawings": (lambda path: omniglot_samples.write_zip(path, {"a.txt": b"x"}), "holds no drawings"),
    "the other archive": (
        lambda path: omniglot_samples.write_zip(path, omniglot_samples.members("images_evaluation")),
        r"is not images_background.zip: expected drawings .*NNNN_NN.png, got 'images_evaluation/",
    ),
    "one drawing less": (with_files(files={FIRST: None}), "expected 20 drawings of Greek/character01, got 19"),
    "other name": (with_files(files={f"{ROOT}/Greek/sheet.png": png(PAPER)}), "got '.*/Greek/sheet.png'"),
    "empty drawing": (with_files(files={FIRST: b""}), r"0700_01.png in .* is corrupted: .* got no PNG file"),
    "no drawing": (with_files(files={FIRST: b"GIF89a" * 9}), "got no PNG file"),
    "cut drawing": (with_files(files={FIRST: FILES[FIRST][:60]}), "is corrupted: .* cannot be read"),
    "small": (with_files(files={FIRST: png(PAPER[:28, :28])}), "105×105 pixels, got 28×28 pixels"),
    "vast": (
        with_files(files={FIRST: FILES[FIRST][:16] + struct.pack(">II", 2**31 - 1, 2**31 - 1) + FILES[FIRST][24:]}),
        "got 2147483647×2147483647 pixels",
    ),
    "colours": (with_files(files={FIRST: png(np.zeros((105, 105, 3), np.uint8))}), "got mode RGB"),
    "greys": (with_files(files={FIRST: png(np.zeros((105, 105), np.uint8))}), "black and white .* got mode L"),
}


@pytest.fixture
def archive(tmp_path):
    return omniglot_samples.write_omniglot(tmp_path / "omniglot") / f"{ROOT}.zip"


@pytest.mark.parametrize("case", REFUSED)
def test_refused(archive, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    change, message = REFUSED[case]
    change(archive)
    with pytest.raises(DataError, match=message) as caught:
        data.load_omniglot(tmp_path)
    assert str(archive) in str(caught.value)
    assert "Fix: `tpc data get omniglot" in str(caught.value)
    assert [row.ok for row in data.verify("omniglot", tmp_path)] == [False, True]
    there = sorted(path.name for path in tmp_path.rglob("*"))
    assert there == ["images_background.zip", "images_evaluation.zip", "omniglot"]


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_truncated(archive, tmp_path, kept):
    raw = archive.read_bytes()
    archive.write_bytes(raw[: int(kept * len(raw))])
    with pytest.raises(DataError, match=r"images_background.zip is truncated or corrupted"):
        data.load_omniglot(tmp_path)


def test_damaged_anywhere(archive):
    """A changed byte is noticed or does no harm."""
    raw = archive.read_bytes()
    expected = omniglot_format.read_archive(archive, omniglot_format.BACKGROUND)
    noticed = 0
    for position in np.random.default_rng(0).integers(0, len(raw), 60):
        archive.write_bytes(raw[:position] + bytes([raw[position] ^ 0x41]) + raw[position + 1 :])
        try:
            images, names = omniglot_format.read_archive(archive, omniglot_format.BACKGROUND)
        except DataError:
            noticed += 1
        else:
            assert np.array_equal(images, expected[0])
            assert names == expected[1]
    assert noticed > 20


def test_damaged_drawings_are_told():
    """Whatever stands in a PNG file, the answer is pixels or a DataError."""
    rng = np.random.default_rng(0)
    raw = FILES[FIRST]
    for _ in range(1500):
        changed = bytearray(raw)
        for position in rng.integers(0, len(raw), rng.integers(1, 4)):
            changed[position] = rng.integers(256)
        try:
            assert decode(bytes(changed), "drawing").shape == (784,)
        except DataError:
            continue


def test_what_systems_add_is_passed_over(archive, tmp_path):
    extra = {"__MACOSX/images_background/._0700_01.png": b"x", f"{ROOT}/.DS_Store": b"x", "readme.txt": b"x"}
    omniglot_samples.write_zip(archive, FILES | extra)
    assert len(data.load_omniglot(tmp_path, "background", augment=False).train) == 5


def test_both_archives_hold_one_character(archive, tmp_path):
    same = {name.replace(ROOT, "images_evaluation"): content for name, content in FILES.items()}
    omniglot_samples.write_zip(archive.with_name("images_evaluation.zip"), same)
    with pytest.raises(DataError, match="both archives hold Greek/character01"):
        data.load_omniglot(tmp_path)


def test_stored_entries_are_read(archive, tmp_path):
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as stored:
        for name, content in FILES.items():
            stored.writestr(name, content)
    assert len(data.load_omniglot(tmp_path, "background", augment=False).train) == 5


def test_the_sample_is_in_the_official_form():
    assert FILES[FIRST][24:26] == b"\x01\x00"  # one bit per pixel, grey
