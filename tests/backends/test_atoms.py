"""Stored atoms: growth without copying, blocks, decay, momentum, dump and restore, threads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from backends import atoms as stored
from backends import numpy_runtime as rt
from backends.atoms import Atoms

WIDTHS = {"A": (2,), "B": (3,), "t0": ()}


@pytest.fixture
def short_segments(monkeypatch):
    monkeypatch.setattr(stored, "SEGMENT_BYTES", 1)  # the least: 256 rows


@pytest.fixture
def thread_count():
    """Sets the number of worker threads, and puts it back."""
    workers = rt.threads()
    before = workers.count
    yield workers.set
    workers.set(before)


def rows(count, seed=0, dtype="float64"):
    rng = np.random.default_rng(seed)
    return {n: rng.standard_normal((count, *w)).astype(dtype) for n, w in WIDTHS.items()}


def filled(*counts, dtype="float64", momentum=False):
    atoms = Atoms(WIDTHS, dtype, momentum)
    parts = [rows(n, seed, dtype) for seed, n in enumerate(counts)]
    for part in parts:
        atoms.extend(part)
    return atoms, {n: np.concatenate([p[n] for p in parts]) for n in WIDTHS}


# --- growing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", [(1,), (256,), (257,), (255, 2), (100, 0, 700, 3), (1000,)])
def test_rows_come_back_in_order_across_segments(short_segments, counts):
    atoms, whole = filled(*counts)
    assert atoms.rows == 256
    assert len(atoms) == sum(counts)
    for name, value in whole.items():
        np.testing.assert_array_equal(atoms.column(name), value)
    assert len(atoms._segments) == -(-sum(counts) // 256)


def test_growth_copies_nothing(short_segments):
    atoms, _ = filled(600)
    before = [{n: (id(a), a.ctypes.data) for n, a in segment.items()} for segment in atoms._segments]
    copies = [{n: a.copy() for n, a in segment.items()} for segment in atoms._segments[:2]]
    for seed in range(20):
        atoms.append(0.1, 1.0, **rows(50, seed))
    assert len(atoms) == 1600
    assert len(atoms._segments) == 7
    for segment, places, values in zip(atoms._segments, before, [*copies, {}]):
        for name, array in segment.items():
            assert (id(array), array.ctypes.data) == places[name]
            if values:
                np.testing.assert_array_equal(array, values[name])


def test_a_segment_has_the_agreed_size():
    wide = Atoms({"A": (1000,), "B": (1000,)}, "float32")
    assert wide.rows * 2000 * 4 <= stored.SEGMENT_BYTES < (wide.rows + 1) * 2000 * 4


def test_batches_with_several_axes_are_flattened():
    atoms = Atoms({"A": (2,), "B": (3,)}, "float64")
    a, b = np.arange(12.0).reshape(2, 3, 2), np.arange(18.0).reshape(2, 3, 3)
    atoms.append(-1.0, 1.0, A=a, B=b)
    np.testing.assert_array_equal(atoms.column("A"), a.reshape(6, 2))
    np.testing.assert_array_equal(atoms.column("B"), b.reshape(6, 3))


def test_bytes_are_those_of_the_rows():
    atoms, _ = filled(10, dtype="float32")
    assert atoms.nbytes == 10 * 6 * 4
    atoms.with_momentum()
    assert atoms.nbytes == 10 * (6 * 4 + 16)
    assert Atoms(WIDTHS, "float32").nbytes == 0


def test_stored_rows_have_the_dtype_of_the_store():
    atoms = Atoms(WIDTHS, "float32")
    atoms.append(0.1, 0.5, **rows(3))
    assert {atoms.column(n).dtype.name for n in WIDTHS} == {"float32"}
    assert {b.dtype.name for block in atoms.blocks(("A", "B", "t0", "scale")[:3], 2) for b in block} == {"float32"}


def test_the_arrays_given_are_not_kept():
    part = rows(4)
    atoms = Atoms(WIDTHS, "float64")
    atoms.extend(part)
    part["B"][:] = 99
    assert not (atoms.column("B") == 99).any()
    atoms.column("B")[:] = 99
    assert not (atoms.column("B") == 99).any()


def test_appending_leaves_the_gradient_alone():
    part = rows(4)
    before = part["A"].copy()
    atoms = Atoms(WIDTHS, "float64")
    atoms.append(0.5, 0.5, **part)
    np.testing.assert_array_equal(part["A"], before)
    np.testing.assert_allclose(atoms.column("A"), -0.25 * before)


# --- blocks ----------------------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(st.integers(1, 1200), st.integers(1, 700))
def test_blocks_cover_every_row_once(count, size):
    old, stored.SEGMENT_BYTES = stored.SEGMENT_BYTES, 1
    try:
        atoms = Atoms({"A": (), "B": (1,)}, "float64")
    finally:
        stored.SEGMENT_BYTES = old
    atoms.extend({"A": np.arange(float(count)), "B": np.arange(float(count))[:, None]})
    blocks = atoms.blocks(("B", "A"), size)
    np.testing.assert_array_equal(np.concatenate([a for _, a in blocks]), np.arange(count))
    assert all(len(a) == len(b) <= size and np.array_equal(a, b[:, 0]) for b, a in blocks)


def test_blocks_are_views():
    atoms, _ = filled(10)
    for (block,) in atoms.blocks(("B",), 4):
        assert np.shares_memory(block, atoms._segments[0]["B"])


def test_blocks_can_carry_the_factor_of_every_atom(short_segments):
    atoms, _ = filled(300)
    atoms.with_momentum()
    atoms.age(0.1, 0.5, 0.9)
    atoms.append(0.2, 1.0, **rows(5))
    scale = np.concatenate([s for _, s in atoms.blocks(("A", "scale"), 64)])
    np.testing.assert_allclose(scale, [*[0.5] * 300, *[-0.2] * 5])


def total(atoms, batch=1):
    return rt.over_blocks(lambda a, b: (a.sum(axis=0), a.T @ b), atoms, ("A", "B"), batch)


def test_sums_over_blocks(short_segments):
    atoms, whole = filled(3000)
    first, second = total(atoms)
    np.testing.assert_allclose(first, whole["A"].sum(axis=0), rtol=1e-12)
    np.testing.assert_allclose(second, whole["A"].T @ whole["B"], rtol=1e-12, atol=1e-12)


def test_a_sum_over_no_atoms_is_zero_of_the_right_shape():
    first, second = total(Atoms(WIDTHS, "float32"))
    assert (first.shape, second.shape) == ((2,), (2, 3))
    assert first.dtype == second.dtype == np.float32
    assert not first.any()
    assert not second.any()


def test_one_block_is_not_changed_by_the_sum():
    """A block may return a view of the stored rows: adding to it would change them."""
    atoms, whole = filled(5)
    (first,) = rt.over_blocks(lambda a: (a[0],), atoms, ("A",), 1)
    first += 1
    np.testing.assert_array_equal(atoms.column("A"), whole["A"])


@pytest.mark.parametrize("count", [2, 3, 7])
def test_threads_change_nothing_but_rounding(short_segments, thread_count, count):
    atoms, _ = filled(5000, dtype="float32")
    thread_count(1)
    alone = total(atoms, batch=200)
    thread_count(count)
    together = total(atoms, batch=200)
    for a, b in zip(alone, together):
        np.testing.assert_allclose(b, a, rtol=1e-4, atol=1e-3)
    again = total(atoms, batch=200)
    for a, b in zip(together, again):
        np.testing.assert_array_equal(a, b)  # never on timing


def test_an_error_in_a_thread_is_raised(short_segments, thread_count):
    atoms, _ = filled(2000)
    thread_count(2)

    def block(a):
        raise ZeroDivisionError("in a block")

    with pytest.raises(ZeroDivisionError, match="in a block"):
        rt.over_blocks(block, atoms, ("A",), 200)


# --- updates against a dense recurrence ------------------------------------------------------------------------------


class Dense:
    """m ← μ m + clip·∇, W ← keep·W - rate·m, with one row per atom."""

    def __init__(self, a):
        self.a = a.copy()
        self.m = np.zeros_like(a)

    def step(self, grad, rate, clip, keep, momentum):
        self.m = np.concatenate([momentum * self.m, clip * grad])
        self.a = keep * np.concatenate([self.a, np.zeros_like(grad)]) - rate * self.m


def step(atoms, part, rate, clip, keep, momentum):
    if momentum:
        atoms.with_momentum()
    atoms.age(rate, keep, momentum)
    atoms.append(rate, clip, **part)


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(
            st.integers(0, 4),
            st.sampled_from([0.0, 0.1, 1.0]),
            st.sampled_from([1.0, 0.3]),
            st.sampled_from([1.0, 0.9, 0.3, 1.2, -0.5]),
            st.sampled_from([0.0, 0.0, 0.9]),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_any_sequence_of_steps_follows_the_dense_recurrence(steps):
    atoms, whole = filled(3)
    dense = Dense(whole["A"])
    with_momentum = False
    for seed, (count, rate, clip, keep, momentum) in enumerate(steps, 10):
        part = rows(count, seed)
        if momentum and not with_momentum:
            with_momentum, dense.m = True, np.zeros_like(dense.a)  # starts at zero when first asked for
        step(atoms, part, rate, clip, keep, momentum)
        dense.step(part["A"], rate, clip, keep, momentum)
        if not with_momentum:
            dense.m[:] = 0
        scale = max(1.0, np.abs(dense.a).max())
        np.testing.assert_allclose(atoms.column("A") / scale, dense.a / scale, rtol=0, atol=1e-12)


@pytest.mark.parametrize("keep", [0.5, 1.5, -0.5])
def test_decay_is_one_number_kept_within_bounds(keep):
    atoms, whole = filled(3, dtype="float32")
    expected = whole["A"].astype(np.float64)
    for _ in range(40):
        atoms.age(0.1, keep, 0.0)
        expected *= keep
        assert 1e-3 <= abs(atoms.scale) <= 1e3
        np.testing.assert_allclose(atoms.column("A"), expected, rtol=2e-5)


def test_decay_to_nothing():
    atoms, _ = filled(3)
    atoms.age(0.1, 0.0, 0.0)
    assert not atoms.column("A").any()
    part = rows(2, 5)
    atoms.append(0.5, 1.0, **part)
    np.testing.assert_allclose(atoms.column("A")[3:], -0.5 * part["A"])


def test_momentum_takes_over_the_decay_so_far():
    atoms, whole = filled(3)
    atoms.age(0.1, 0.5, 0.0)
    atoms.with_momentum()
    np.testing.assert_array_equal(atoms.column("A"), 0.5 * whole["A"])
    atoms.with_momentum()
    np.testing.assert_array_equal(atoms.column("A"), 0.5 * whole["A"])


# --- dump and restore ------------------------------------------------------------------------------------------------


def restored(atoms, dtype):
    stored = {name: np.concatenate(pieces) for name, pieces in atoms.dump().items()}
    return Atoms.restore(stored.get, WIDTHS, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("counts", [(0,), (1,), (256,), (300, 400)])
def test_a_restored_store_continues_bit_for_bit(short_segments, counts, momentum, dtype):
    atoms, _ = filled(*counts, dtype=dtype)
    for seed in range(3):
        step(atoms, rows(30, seed), 0.1, 0.7, 0.9, momentum)
    again = restored(atoms, dtype)
    for seed in range(3, 6):
        for a in (atoms, again):
            step(a, rows(30, seed), 0.1, 0.7, 0.9, momentum)
    assert len(atoms) == len(again)
    assert atoms.scale == again.scale
    first, second = atoms.dump(), again.dump()
    assert first.keys() == second.keys()
    for name, value in first.items():
        for piece, other in zip(value, second[name], strict=True):
            assert piece.dtype == other.dtype
            np.testing.assert_array_equal(piece, other)


def test_an_empty_store_can_be_dumped(short_segments):
    for momentum in (False, True):
        atoms = Atoms(WIDTHS, "float32", momentum)
        again = restored(atoms, "float32")
        assert len(again) == 0
        assert again.per_atom == momentum
        assert again.column("A").shape == (0, 2)
        again.append(0.1, 1.0, **rows(2))
        assert len(again) == 2


# --- functions -------------------------------------------------------------------------------------------------------


VALUES = np.array([-800.0, -1.5, -1.0, -1e-9, 0.0, 1e-9, 0.5, 1.0, 1.5, 800.0])
FUNCTIONS = {
    "rsqrt": [0, 0, 0, 0, 0, 1e-9**-0.5, 2**0.5, 1, 1.5**-0.5, 800**-0.5],
    "step": [0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
    "relu": [0, 0, 0, 0, 0, 1e-9, 0.5, 1, 1.5, 800],
    "clip1": [-1, -1, -1, -1e-9, 0, 1e-9, 0.5, 1, 1, 1],
    "softplus": [0, *np.log1p(np.exp(VALUES[1:9])), 800],
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_functions(name, dtype):
    x = VALUES.astype(dtype)
    if name == "rsqrt":
        x = np.maximum(x, 0)
    found = getattr(rt, name)(x)
    assert found.dtype == x.dtype
    np.testing.assert_allclose(found, FUNCTIONS[name], rtol=1e-6, atol=1e-8)
    into = np.empty_like(x)
    again = getattr(rt, name)(x, out=into)
    np.testing.assert_array_equal(again, found)


def test_logsumexp_does_not_overflow():
    x = np.array([[1000.0, 1000.0], [-1000.0, -1001.0]], dtype=np.float32)
    found = rt.logsumexp(x, axis=1)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [1000 + np.log(2), -1000 + np.log1p(np.exp(-1))], rtol=1e-6)


def test_special_functions():
    x = np.array([-2.0, 0.0, 0.5])
    np.testing.assert_allclose(rt.erf(x), [-0.9953222650189527, 0, 0.5204998778130465], rtol=1e-14)
    np.testing.assert_allclose(rt.erfc(x), [1.9953222650189527, 1, 0.4795001221869535], rtol=1e-14)
    np.testing.assert_allclose(rt.dawson(x), [-0.3013403889237920, 0, 0.4244363835020223], rtol=1e-13)
