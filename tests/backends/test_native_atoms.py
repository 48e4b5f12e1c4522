"""Atoms stored in 16 bits: rounding, growth, dump and restore; segments that leave."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends.arrays import ALIGNMENT
from backends.atoms import Atoms
from backends.half import from_stored, stored_dtype, to_stored
from backends.native_backend import BACKEND as NATIVE

WIDTHS = {"A": (2,), "B": (5,), "t0": ()}
UNITS = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # half a step at 1
HALVES = pytest.mark.parametrize("storage", list(UNITS))


def rows(count, seed=0):
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal((count, *w)).astype(np.float32) for n, w in WIDTHS.items()}


def filled(storage, count=300, momentum=False):
    atoms = NATIVE.new_atoms(WIDTHS, "float32", momentum, storage, 64)
    atoms.extend(rows(count), 0.5, 0.25)
    return atoms


# --- numbers ---------------------------------------------------------------------------------------------------------


def nearest_bfloat16(x):
    """Round to nearest, ties to even, by comparing the two neighbours in float64."""
    bits = np.array(x, np.float32).view(np.uint32)
    low = bits & np.uint32(0xFFFF0000)
    high = low + np.uint32(0x10000)
    below, above = (b.view(np.float32).astype(np.float64) for b in (low, high))
    left, right = abs(x - below), abs(above - x)
    up = right < left or (right == left and (low >> np.uint32(16)) & np.uint32(1))
    return float(above if up else below)


@settings(max_examples=300)
@given(st.floats(width=32, allow_nan=False, allow_infinity=False, max_value=2.0**120, min_value=-(2.0**120)))
def test_bfloat16_is_the_nearest(x):
    stored = to_stored(np.array([x], np.float32), stored_dtype("bfloat16"))
    assert stored.dtype == np.uint16
    assert float(from_stored(stored, np.dtype(np.float32))[0]) == nearest_bfloat16(x)


@HALVES
def test_every_stored_number_survives(storage):
    stored = np.arange(1 << 16, dtype=np.uint16).view(stored_dtype(storage))
    wide = from_stored(stored, np.dtype(np.float32))
    again = to_stored(wide, stored_dtype(storage))
    number = ~np.isnan(wide)
    np.testing.assert_array_equal(again.view(np.uint16)[number], stored.view(np.uint16)[number])
    assert np.isnan(from_stored(again, np.dtype(np.float32))[~number]).all()


@HALVES
def test_infinities_stay(storage):
    x = np.array([np.inf, -np.inf, np.nan], np.float32)
    got = from_stored(to_stored(x, stored_dtype(storage)), np.dtype(np.float32))
    np.testing.assert_array_equal(got, x)


def test_what_is_too_large_is_infinite():
    largest = np.array([np.finfo(np.float32).max], np.float32)
    assert np.isinf(from_stored(to_stored(largest, stored_dtype("bfloat16")), np.dtype(np.float32)))[0]


# --- stores ----------------------------------------------------------------------------------------------------------


@HALVES
def test_columns_are_rounded_once(storage):
    atoms, whole = filled(storage), rows(300)
    for name in ("A", "B"):
        assert atoms.stored(name).itemsize == 2
        got = atoms.column(name)
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, whole[name], rtol=UNITS[storage])
        assert (got != whole[name]).any()
    np.testing.assert_array_equal(atoms.column("t0"), whole["t0"])  # a number per atom is not worth rounding
    assert atoms.nbytes == 300 * (7 * 2 + 4)


@HALVES
def test_blocks_are_numbers(storage):
    atoms = filled(storage)
    blocks = atoms.blocks(("B", "A", "t0"), 50)
    assert {x.dtype.name for block in blocks for x in block} == {"float32"}
    np.testing.assert_array_equal(np.concatenate([b for b, _, _ in blocks]), atoms.column("B"))


@HALVES
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("count", [0, 1, 64, 200])
def test_a_restored_store_continues_bit_for_bit(storage, momentum, count):
    atoms = filled(storage, count, momentum)
    stored = {n: np.concatenate(pieces) for n, pieces in atoms.dump().items()}
    again = NATIVE.restore_atoms(stored.get, WIDTHS, "float32", storage, 32)
    for a in (atoms, again):
        a.age(0.1, 0.9, 0.5 if momentum else 0.0)
        a.append(0.2, 1.0, **rows(40, 1))
    for name, pieces in atoms.dump().items():
        np.testing.assert_array_equal(np.concatenate(pieces), np.concatenate(again.dump()[name]))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float16_keeps_what_is_finite_finite(dtype):
    x = np.array([1.0, 65504, 65519, 65520, 1e5, -65520, -3e38, np.inf, -np.inf, np.nan, 1e-9], dtype)
    stored = to_stored(x, stored_dtype("float16"))
    assert stored.dtype == np.float16
    most = 65504.0
    want = np.array([1, most, most, most, most, -most, -most, np.inf, -np.inf, np.nan, 0], dtype)
    np.testing.assert_array_equal(from_stored(stored, np.dtype(dtype)), want)
    atoms = NATIVE.new_atoms({"A": (), "B": (3,)}, "float32", False, "float16", 64)
    atoms.extend({"A": np.ones(2, np.float32), "B": np.full((2, 3), 7e4, np.float32)})
    assert (atoms.column("B") == most).all()


@pytest.mark.parametrize("target", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("source", ["float32", "bfloat16", "float16"])
def test_stores_can_be_restored_in_another_storage(source, target):
    atoms = filled(source)
    stored = {n: np.concatenate(pieces) for n, pieces in atoms.dump().items()}
    again = NATIVE.restore_atoms(stored.get, WIDTHS, "float32", target)
    assert again.storage == target
    dtype = stored_dtype(target)
    for name in ("A", "B"):
        np.testing.assert_array_equal(
            again.column(name), from_stored(to_stored(atoms.column(name), dtype), np.dtype(np.float32))
        )


@HALVES
def test_decay_rounds_as_little_as_it_can(storage):
    atoms, whole = filled(storage), rows(300)
    for _ in range(200):
        atoms.age(0.1, 0.9, 0.0)
        assert 1e-3 <= abs(atoms.scale) <= 1e3 or storage == "float16"
    expected = whole["A"] * 0.9**200
    np.testing.assert_allclose(atoms.column("A"), expected, rtol=8 * UNITS[storage], atol=1e-16)


# --- the range of float16 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_coefficients_in_float16_may_have_any_size(size, momentum):
    """Also beside others of another size, as those of a step are beside the initial ones."""
    atoms = NATIVE.new_atoms(WIDTHS, "float32", momentum, "float16", 64)
    first, then, last = rows(100), rows(30, 1), rows(20, 2)
    atoms.extend({**first, "A": first["A"] * np.float32(size)})
    atoms.append(1e-6 * size, 1.0, **dict(then))
    atoms.append(50 * size, 1.0, **dict(last))
    expected = np.concatenate([first["A"], -1e-6 * then["A"], -50 * last["A"]]) * size
    np.testing.assert_allclose(atoms.column("A"), expected, rtol=2 * UNITS["float16"], atol=2e-9 * size)
    stored = {n: np.concatenate(pieces) for n, pieces in atoms.dump().items()}
    again = NATIVE.restore_atoms(stored.get, WIDTHS, "float32", "float16", 64)
    for a in (atoms, again):
        a.append(1e-3 * size, 1.0, **rows(40, 3))
        a.append(1e4 * size, 1.0, **rows(40, 4))
    np.testing.assert_array_equal(atoms.column("A"), again.column("A"))
    wide = NATIVE.new_atoms(WIDTHS, "float32", momentum, "float32", 64)
    wide.extend({**first, "A": first["A"] * np.float32(size)})
    kept = {n: np.concatenate(pieces) for n, pieces in wide.dump().items()}
    narrowed = NATIVE.restore_atoms(kept.get, WIDTHS, "float32", "float16", 64)
    np.testing.assert_allclose(narrowed.column("A"), wide.column("A"), rtol=2 * UNITS["float16"], atol=1e-10 * size)


def test_rows_start_at_a_cache_line():
    for storage in ("float32", "bfloat16"):
        atoms = filled(storage)
        assert len(atoms.addresses("B")) == 5
        assert all(address % ALIGNMENT == 0 for name in WIDTHS for address in atoms.addresses(name))


# --- segments that leave ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["float32", *UNITS])
@pytest.mark.parametrize("momentum", [False, True])
def test_the_oldest_segment_leaves(storage, momentum):
    atoms = filled(storage, 200, momentum)
    atoms.age(0.1, 0.5, 0.9 if momentum else 0.0)
    before = {n: atoms.column(n) for n in WIDTHS}
    gone = atoms.pop_segment()
    assert len(atoms) == 136
    for name, column in before.items():
        assert gone[name].dtype == np.float32
        np.testing.assert_array_equal(gone[name], column[:64])
        np.testing.assert_array_equal(atoms.column(name), column[64:])
    assert ("velocity" in gone) == momentum
    if momentum:  # scale 0.5·0.5 - 0.1·0.9·0.25, velocity 0.9·0.25
        np.testing.assert_allclose(gone["velocity"], gone["A"] * (0.225 / (0.25 - 0.0225)), rtol=1e-6)
    atoms.append(0.2, 1.0, **rows(100, 3))
    assert len(atoms) == 236
    np.testing.assert_array_equal(atoms.column("B")[:136], before["B"][64:])


def test_a_segment_that_is_not_full_stays():
    atoms = filled("float32", 63)
    with pytest.raises(IndexError, match="64 atoms, got 63"):
        atoms.pop_segment()
    assert len(atoms) == 63


def test_segments_can_leave_until_none_is_full():
    atoms = filled("float32", 128)
    for _ in range(2):
        atoms.pop_segment()
    assert len(atoms) == 0
    assert atoms.column("B").shape == (0, 5)
    atoms.append(0.1, 1.0, **rows(3))
    assert len(atoms) == 3


def test_rows_of_a_segment_can_be_chosen():
    assert Atoms(WIDTHS, "float32", rows=7).rows == 7
