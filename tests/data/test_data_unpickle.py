"""The restricted pickle reader: what CIFAR-10 contains comes through, nothing else runs or is admitted."""

import builtins
import contextlib
import os
import pickle
import re
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import cifar_samples
from tpc.data.unpickle import MAX_OPCODES, UnpickleError, loads

PIXELS = np.random.default_rng(1).integers(0, 256, (4, 3072), dtype=np.uint8)
LABELS = [0, 9, 3, 3]


def as_text(value):
    return value.decode() if isinstance(value, bytes) else value


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_protocol_gives_the_batch_back(protocol, order):
    batch = cifar_samples.batch_dict(np.asarray(PIXELS, order=order), LABELS, "training batch 1 of 5")
    got = loads(pickle.dumps(batch, protocol))
    assert got["labels"] == LABELS
    assert np.array_equal(got["data"], PIXELS)
    assert got["data"].dtype == np.uint8
    assert as_text(got["filenames"][1]) == "truck_00001.png"
    assert as_text(got["batch_label"]) == "training batch 1 of 5"


@pytest.mark.parametrize("protocol", range(4))  # later ones prefix the name with its length
@pytest.mark.parametrize("core", [b"numpy.core.", b"numpy._core."])
def test_both_spellings_of_numpy_core(protocol, core):
    raw = re.sub(rb"numpy\._?core\.", core, pickle.dumps({"data": PIXELS, "n": np.uint8(3)}, protocol))
    assert core in raw
    got = loads(raw)
    assert np.array_equal(got["data"], PIXELS)
    assert got["n"] == 3


def test_python2_pickle():
    raw = cifar_samples.python2_batch(PIXELS, LABELS, "training batch 1 of 5")
    assert np.array_equal(pickle.loads(raw, encoding="latin1")["data"], PIXELS)  # the sample itself is right
    got = loads(raw)
    assert np.array_equal(got["data"], PIXELS)
    assert got["labels"] == LABELS


def test_numbers_of_numpy():
    got = loads(pickle.dumps({"labels": [np.int64(7), np.uint8(255)], "array": np.array([1, -2], dtype=">i4")}))
    assert got["labels"] == [7, 255]
    assert got["array"].tolist() == [1, -2]


class Calls:
    """Pickles as a call of `function` with `arguments`."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.reduced


def test_the_hostile_sample_is_hostile_and_refused(tmp_path):
    marker = tmp_path / "ran"
    raw = pickle.dumps({b"data": PIXELS, b"labels": Calls(os.mkdir, str(marker))})
    with pytest.raises(UnpickleError, match=r"names '(posix|nt)\.mkdir', which is not allowed"):
        loads(raw)
    assert not marker.exists()
    pickle.loads(raw)
    assert marker.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "value",
    [
        Calls(os.system, "exit 1"),
        Calls(builtins.eval, "1 + 1"),
        Calls(builtins.exec, "pass"),
        Calls(builtins.getattr, {}, "keys"),
        Calls(builtins.__import__, "os"),
        Calls(np.load, "x.npy"),
        Calls(np.testing.runstring, "pass", {}),
        Calls(np.fromfile, "x.bin"),
        Calls(np.ndarray, (2,)),
        Calls(Path, "/"),
        np.array([{}], dtype=object),
        np.array([1.5]),
        np.array(["text"]),
        np.zeros(2, dtype=[("a", "u1")]),
        np.zeros(2, dtype="M8[s]"),
        np.ma.masked_array([1]),
        np.float64(0.5),
        np.random.default_rng(0),
        {1, 2},
        1.5,
        slice(1),
        os.system,
        np.ndarray,
    ],
    ids=lambda value: type(value).__name__,
)
def test_refused_values(value, protocol):
    raw = pickle.dumps({"data": PIXELS, "labels": value}, protocol)
    with pytest.raises(UnpickleError):
        loads(raw)


DTYPE = b"cnumpy\ndtype\n(X\x02\x00\x00\x00u1I0\nI1\ntR"
EMPTY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntC\x01btR"


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "pickle exhausted"),
        (b".", "stack is empty"),
        (b"}", "pickle exhausted"),
        (b"K\x05.", "holds a int and not a dictionary"),
        (b"\x80\x04\x95", "not enough data"),
        (b"\xff.", "opcode b'\\\\xff' unknown"),
        (b"(ios\nsystem\n.", "instruction INST"),
        (b"cos\nsystem\n.", "names 'os.system'"),
        (b"\x8c\x02os\x8c\x06system\x93.", "names 'os.system'"),
        (b"\x8c\x05numpy\x8c\x0dtesting.utils\x93.", "names 'numpy.testing.utils'"),
        (b"cnumpy.core.multiarray\n_reconstruct.__globals__\n.", "_reconstruct.__globals__"),
        (b"cnumpy\ndtype\n(tR.", "type '' is not allowed"),
        (b"cnumpy\ndtype\n(X\x01\x00\x00\x00OtR.", "type 'O' is not allowed"),
        (b"cnumpy\ndtype\n}b.", "sets the state of a _Name"),
        (b"cnumpy\nndarray\n(K\x01tR.", "calls something"),
        (b"cnumpy\ndtype\n)\x81.", "instruction NEWOBJ"),
        (b"(cnumpy\ndtype\no.", "instruction OBJ"),
        (b"\x82\x01.", "instruction EXT1"),
        (b"P0\n.", "instruction PERSID"),
        (b"K\x00Q.", "instruction BINPERSID"),
        (b"\x97.", "instruction NEXT_BUFFER"),
        (b"}2.", "instruction DUP"),
        (b"}h\x05.", "memo entry is used before it is set"),
        (b"h\x00.", "memo entry"),
        (b"e.", "no mark is open"),
        (b"}(K\x01e.", "expected a list"),
        (b"](K\x01K\x02u.", "expected a dict"),
        (b"}(K\x01K\x02u.", "expected a string, got int"),
        (b"}(X\x01\x00\x00\x00au.", "key without a value"),
        (b"}}(K\x01tb.", "sets the state of a dict"),
        (b"}(X\x04\x00\x00\x00data" + EMPTY + b"u.", "array without content"),
        (b"}(X\x04\x00\x00\x00data" + DTYPE + b"u.", "type without an array"),
        (EMPTY + b"}b.", "state of the wrong form"),
        (EMPTY + b"(K\x01(K\x04t" + DTYPE + b"\x89C\x02abtb.", "cannot reshape"),
        (EMPTY + b"(K\x01(J\xff\xff\xff\xfft" + DTYPE + b"\x89C\x02abtb.", "shape of the wrong form"),
        (EMPTY + b"(K\x01(\x8a\x09" + b"\x7f" * 9 + b"t" + DTYPE + b"\x89C\x02abtb.", "."),
        (EMPTY + b"(K\x01(K\x02t" + DTYPE + b"\x89]tb.", "expected the bytes of an array, got list"),
        (EMPTY + b"(K\x01(K\x02tN\x89C\x02abtb.", "no integer type"),
        (DTYPE + b"(K\x03X\x01\x00\x00\x00|}NNJ\xff\xff\xff\xffK\x01K\x00tb.", "fields, objects or metadata"),
        (b"cnumpy.core.multiarray\n_reconstruct\n(K\x01K\x02tR.", "unknown class"),
        (b"cnumpy.core.multiarray\nscalar\n(K\x01tR.", "number has the wrong form"),
        (b"cnumpy.core.numeric\n_frombuffer\n(K\x01tR.", "array has the wrong form"),
        (b"c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00hextR.", "bytes have the wrong form"),
    ],
)
def test_refused_streams(raw, message):
    with pytest.raises(UnpickleError, match=message):
        loads(raw)


def test_bombs_are_bounded():
    huge_memo = b"}r\xff\xff\xff\xff."
    assert loads(huge_memo) == {}  # the memo is sparse: no room for four billion entries
    with pytest.raises(UnpickleError, match="expected"):
        loads(b"}\x8e" + struct.pack("<Q", 2**62) + b".")  # announces four exabytes
    with pytest.raises(UnpickleError, match="steps"):
        loads(b"}" + b"]" * MAX_OPCODES + b".")
    text = b"X" + struct.pack("<I", 10_000) + b"a" * 10_000 + b"q\x01"
    repeat = b"c_codecs\nencode\nq\x02" + text + b"X\x06\x00\x00\x00latin1q\x03" + b"h\x02h\x01h\x03\x86R" * 50
    with pytest.raises(UnpickleError, match="more bytes than the file has"):
        loads(repeat + b".")
    nested = b")" + b"\x85" * 400_000
    with pytest.raises(UnpickleError, match="expected a string, got tuple"):
        loads(b"}" + nested + b"K\x01s.")  # hashing such a key would overflow the stack
    with pytest.raises(UnpickleError):
        loads(b"}(X\x01\x00\x00\x00aL" + b"9" * 100_000 + b"L\nu.")


VALID = pickle.dumps(cifar_samples.batch_dict(PIXELS[:1, :40], [3], "b"), 2)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damage_is_refused_or_harmless(data):
    raw = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(1, len(raw)))
    try:
        got = loads(bytes(raw[:cut]))
    except UnpickleError:
        return
    assert isinstance(got, dict)
    assert all(isinstance(key, str) for key in got)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_noise_is_refused_or_harmless(raw):
    with contextlib.suppress(UnpickleError):
        assert isinstance(loads(raw), dict)
