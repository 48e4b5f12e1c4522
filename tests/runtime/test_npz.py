"""Saved files are checked, name by name, against the model and their own size before memory is taken."""

import json
import tracemalloc
import zipfile

import numpy as np
import pytest

import tpc
from tests.support.problems import CLASSES, DIM, RANK, batch
from tpc.errors import DataError
from tpc.runtime.files.npz import read_meta
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.networks.network_file import is_network
from tpc.runtime.trained import load_trained


@pytest.fixture(scope="module")
def limit(programs_dir):
    return tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES))


@pytest.fixture(params=["plain", "momentum", "folded", "network"])
def saved(request, limit, tmp_path):
    fold = {"mode": "folded", "fold": FoldOptions(degree=2, window=0)} if request.param == "folded" else {}
    options = {"momentum": 0.5} if request.param in ("momentum", "network") else {}
    model = tpc.finite(limit, 8, DIM) if request.param == "network" else limit.build(DIM, RANK, init="paper", **fold)
    for k in range(3):
        model.step(*batch(k), lr=0.1, **options)
    model.save(tmp_path / "model.npz")
    return tmp_path / "model.npz"


def rewritten(file, change):
    with np.load(file) as found:
        arrays = {name: found[name] for name in found.files}
    meta = json.loads(arrays["meta"].tobytes())
    change(arrays, meta)
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(file, **arrays)
    return file


def refused(file, message):
    tracemalloc.start()
    with pytest.raises(DataError, match=message) as caught:
        load_trained(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert str(file) in str(caught.value)
    assert peak < 100_000_000


def an_array(arrays):
    return next(name for name in arrays if name != "meta" and arrays[name].ndim == 2)


def test_whole_files_are_read(saved):
    model = load_trained(saved)
    assert is_network(saved) == isinstance(model, tpc.Network)
    assert np.isfinite(model.predict(batch()[0])).all()


@pytest.mark.parametrize("change", [1j, np.str_("a"), None])
def test_other_kinds_of_numbers(saved, change):
    def other(arrays, meta):
        name = an_array(arrays)
        kinds = {1j: np.complex64, None: object}
        arrays[name] = arrays[name].astype(kinds.get(change, "U4"))

    with np.load(saved) as file:
        name = an_array({n: file[n] for n in file.files})
    refused(rewritten(saved, other), f"expected real numbers in {name}|not a complete saved")


def test_numbers_that_are_not_finite(saved):
    def broken(arrays, meta):
        arrays[an_array(arrays)].reshape(-1)[1] = np.nan

    refused(rewritten(saved, broken), "has numbers that are not finite")


def test_wrong_shapes(saved):
    def shorter(arrays, meta):
        name = an_array(arrays)
        arrays[name] = arrays[name][:, 1:]

    refused(rewritten(saved, shorter), r"expected \S+ of shape \(.*\), got \(")


def test_arrays_that_are_missing_or_unknown(saved):
    refused(rewritten(saved, lambda arrays, meta: arrays.update(extra=np.ones(3))), "it has the entry extra")
    refused(rewritten(saved, lambda arrays, meta: [arrays.pop("extra"), arrays.pop(an_array(arrays))]), "it lacks ")


def test_a_header_that_promises_petabytes(saved):
    with zipfile.ZipFile(saved) as archive:
        entries = {info.filename: archive.read(info) for info in archive.infolist()}
    name = next(n for n in entries if n != "meta.npy")
    for promised in (1 << 49, 1 << 62):
        header = {"descr": "<f8", "fortran_order": False, "shape": (promised,)}
        with zipfile.ZipFile(saved, "w") as archive:
            for each, raw in entries.items():
                with archive.open(each, "w") as entry:
                    if each == name:
                        np.lib.format.write_array_header_2_0(entry, header)
                    else:
                        entry.write(raw)
        refused(saved, rf"should have the shape \({promised},\), but 0 bytes are there")


def test_a_text_that_promises_petabytes(saved):
    for name in ("meta.npy",):
        with zipfile.ZipFile(saved, "w") as archive, archive.open(name, "w") as entry:
            header = {"descr": "|u1", "fortran_order": False, "shape": (1 << 52,)}
            np.lib.format.write_array_header_2_0(entry, header)
    assert not is_network(saved)
    with pytest.raises(ValueError, match="should have the shape"):
        read_meta(saved)
    refused(saved, "should have the shape")


def test_sizes_that_the_arrays_do_not_have(saved):
    def huge(arrays, meta):
        sizes = meta.get("network", meta)
        sizes["width" if "network" in meta else "rank"] = 10**12

    refused(rewritten(saved, huge), r"expected \S+ of shape \(.*1000000000000")


def test_compressed_files_are_told(saved):
    with np.load(saved) as found:
        arrays = {name: found[name] for name in found.files}
    np.savez_compressed(saved, **arrays)
    refused(saved, "is compressed, and models are saved without compression")


def test_two_arrays_of_one_name(saved):
    with zipfile.ZipFile(saved, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr("meta.npy", archive.read("meta.npy"))
    refused(saved, "two arrays called meta")


@pytest.mark.parametrize("value", [True, False, "yes", 1, None])
def test_momentum_needs_velocities_and_velocities_need_momentum(limit, tmp_path, value):
    for options, holds in (({}, False), ({"momentum": 0.5}, True)):
        model = limit.build(DIM, RANK, init="paper")
        model.step(*batch(), lr=0.1, **options)
        model.save(tmp_path / "model.npz")
        file = rewritten(tmp_path / "model.npz", lambda arrays, meta: meta.update(momentum=value))
        if value is holds:
            assert tpc.Model.load(file).has_momentum is holds
        elif isinstance(value, bool):
            refused(file, r"it lacks \S*velocit" if value else r"it has the entry \S*(velocit|scales)")
        else:
            refused(file, "expected momentum to be true or false")


@pytest.mark.parametrize(
    "change",
    [
        {"limit": "ntk"},
        {"program": "program p\nx : scalar[] = data\n"},
        {"fold": {"points": 1 << 60}},
        {"rank": True},
    ],
)
def test_other_texts(limit, tmp_path, change):
    model = limit.build(DIM, RANK)
    model.save(tmp_path / "model.npz")
    refused(rewritten(tmp_path / "model.npz", lambda arrays, meta: meta.update(change)), "not a complete saved model")
