"""CIFAR-10 archives: truncated, corrupted and hostile ones are refused and never unpacked."""

import gzip
import io
import tarfile
from functools import partial

import pytest

from tests.support import cifar_samples
from tpc import data
from tpc.data.containers import MAX_FILE, MAX_MEMBERS, MAX_TOTAL
from tpc.errors import DataError

write = partial(cifar_samples.write_layout, cifar_samples.make_sample())


def archive_of(root, members, mode="w:gz"):
    path = root / "cifar-10-python.tar.gz"
    with tarfile.open(path, mode) as tar:
        for name, content, kind in members:
            member = tarfile.TarInfo(name)
            member.size, member.type = len(content), kind
            tar.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.9999])
def test_truncated_archive(tmp_path, kept):
    path = write("python archive itself", tmp_path)
    raw = path.read_bytes()
    path.write_bytes(raw[: int(kept * len(raw))])
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz is (truncated or corrupted|incomplete)"):
        data.load("cifar10", tmp_path)


@pytest.mark.parametrize("position", [0.0, 0.3, 0.6, 0.95])
def test_corrupted_archive(tmp_path, position):
    path = write("binary archive itself", tmp_path)
    raw = bytearray(path.read_bytes())
    raw[int(position * len(raw))] ^= 0x55
    path.write_bytes(raw)
    with pytest.raises(DataError, match=r"cifar-10-binary.tar.gz"):
        data.load("cifar10", tmp_path)
    assert not all(row.ok for row in data.verify("cifar10", tmp_path))


def test_the_checksum_inside_gzip_is_checked(tmp_path):
    path = write("binary archive itself", tmp_path)
    raw = bytearray(path.read_bytes())
    raw[-6] ^= 1  # the trailer: CRC-32 and length
    path.write_bytes(raw)
    with pytest.raises(DataError, match="truncated or corrupted: CRC check failed"):
        data.load("cifar10", tmp_path)


def test_hostile_archives(tmp_path):
    escape = archive_of(tmp_path, [("../../escaped", b"x", tarfile.REGTYPE), ("/data_batch_1", b"x", tarfile.REGTYPE)])
    with pytest.raises(DataError, match="incomplete: data_batch_1, data_batch_2"):
        data.load("cifar10", tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == [escape.name]

    root = "cifar-10-batches-py"
    archive_of(tmp_path, [(f"{root}/data_batch_1", b"", tarfile.SYMTYPE)])
    with pytest.raises(DataError, match="incomplete: data_batch_1"):
        data.load("cifar10", tmp_path)

    archive_of(tmp_path, [(f"{root}/data_batch_1", b"x", tarfile.REGTYPE)] * 2)
    with pytest.raises(DataError, match="holds data_batch_1 twice"):
        data.load("cifar10", tmp_path)

    archive_of(tmp_path, [(f"{root}/{index}", b"", tarfile.REGTYPE) for index in range(MAX_MEMBERS + 1)])
    with pytest.raises(DataError, match="more than 64 entries"):
        data.load("cifar10", tmp_path)

    archive_of(tmp_path, [(f"{root}/data_batch_1", bytes(MAX_FILE + 1), tarfile.REGTYPE)])
    with pytest.raises(DataError, match="one above 41,943,040 bytes"):
        data.load("cifar10", tmp_path)

    with gzip.open(tmp_path / "cifar-10-python.tar.gz", "wb", compresslevel=1) as stream:
        header = tarfile.TarInfo("pax")
        header.type, header.size = tarfile.XHDTYPE, 2 * MAX_TOTAL
        stream.write(header.tobuf())
        for _ in range(MAX_TOTAL // 2**22 + 1):
            stream.write(bytes(2**22))
    with pytest.raises(DataError, match="unpacks to more than"):
        data.load("cifar10", tmp_path)
