"""The embedded digits and the catalogue of data sets."""

import gzip
import importlib.machinery
import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tpc import data
from tpc.data import digits
from tpc.errors import UsageError


def test_digits_are_split_once_and_for_all():
    got = data.load("digits")
    assert got.train_x.shape == (1500, 64)
    assert got.test_x.shape == (297, 64)
    assert got.class_names == tuple("0123456789")
    assert got.train_y[:8].tolist() == [2, 8, 2, 6, 6, 7, 1, 9]
    again = data.load("digits")
    assert np.array_equal(got.train_x, again.train_x)
    assert "1,500 train + 297 test" in repr(got)


def test_digits_are_all_there_and_normalised():
    got = data.load("digits", dtype=np.float64)
    norm = got.normalisation
    images = np.concatenate([got.train_x, got.test_x]) * norm.std[0] + norm.mean[0]
    raw, labels = load_digits(return_X_y=True)
    mine = sorted(zip(np.rint(images * norm.scale).astype(int).tolist(), [*got.train_y, *got.test_y]))
    assert mine == sorted(zip(raw.astype(int).tolist(), labels))
    assert abs(got.train_x.mean()) < 1e-12
    assert abs(got.train_x.std() - 1) < 1e-12


def test_digits_limit_keeps_the_first_and_the_normalisation():
    whole, part = data.load("digits"), data.load("digits", limit_train=10)
    assert np.array_equal(part.train_x, whole.train_x[:10])
    assert np.array_equal(part.test_x, whole.test_x)
    assert part.normalisation == whole.normalisation
    with pytest.raises(UsageError, match="1 … 1,500 training images for digits, got 1,501"):
        data.load("digits", limit_train=1501)


@pytest.mark.parametrize("limit", [0, -1])
@pytest.mark.parametrize("name", ["digits", "cifar10"])
def test_limit_is_positive(name, limit, tmp_path):
    with pytest.raises(UsageError, match="at least one training sample"):
        data.load(name, tmp_path, limit_train=limit)


def test_wrong_requests():
    with pytest.raises(UsageError, match="Unknown data set 'mnist': expected one of digits, cifar10"):
        data.load("mnist")
    with pytest.raises(UsageError, match="float32 or float64, got int8"):
        data.load("digits", dtype=np.int8)
    with pytest.raises(UsageError, match=r"digits needs no download: 1,797 images .* bundled with scikit-learn"):
        data.get("digits")


def test_verify_reads_the_bundled_digits():
    assert data.verify("digits") == [("scikit-learn", True, "1,797 images")]


def test_default_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("TPC_DATA_DIR", str(tmp_path))
    assert data.default_data_dir() == tmp_path
    monkeypatch.delenv("TPC_DATA_DIR")
    assert str(data.default_data_dir()) == "data"


@pytest.mark.parametrize("content", [None, b"no gzip", gzip.compress(b"1,2\n3,x\n"), gzip.compress(b"1,2\n")])
def test_digits_come_from_the_library_itself_where_its_file_is_another(tmp_path, monkeypatch, content):
    want = digits.load_digits()
    if content is not None:
        (tmp_path / digits.BUNDLED_FILE).parent.mkdir(parents=True)
        (tmp_path / digits.BUNDLED_FILE).write_bytes(content)
    spec = importlib.machinery.ModuleSpec("sklearn", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(digits.importlib.util, "find_spec", lambda name: spec)
    got = digits.load_digits()
    np.testing.assert_array_equal(got.train_x, want.train_x)
    np.testing.assert_array_equal(got.test_y, want.test_y)


def test_digits_do_not_import_the_whole_library():
    code = "import sys; from tpc import data; data.load('digits'); print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
