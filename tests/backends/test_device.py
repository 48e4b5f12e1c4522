"""What is a device's own: numbers of 16 bits, growth, matrix products, memory, powers, one look at the numbers."""

import ctypes
from types import SimpleNamespace

import numpy as np
import pytest

import tpc
from backends import device_arrays, device_loops, device_runtime, powers
from backends.atoms import Atoms
from backends.cupy_device import TYPES, CupyDevice
from backends.device_arrays import DeviceArrays
from backends.device_powers import DevicePowers
from backends.half import from_stored, to_stored
from tests.support.cuda_cpu.device_arrays import DeviceArray
from tests.support.cuda_cpu.host_device import HostDevice
from tests.support.loops import CLASSES, DIM, Problem, network

WIDTHS = {"A": (2,), "B": (5,), "t0": ()}
FLOAT = np.dtype(np.float32)


@pytest.fixture
def device():
    return HostDevice()


@pytest.fixture
def arrays(device):
    return DeviceArrays(device)


# --- numbers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint16, np.float16])
def test_stored_numbers_are_those_of_the_other_backends(arrays, kind):
    every = np.arange(1 << 16, dtype=np.uint16).view(kind)
    there = arrays.xp.asarray
    wide = arrays.to_host(arrays.load(there(every), FLOAT))
    np.testing.assert_array_equal(wide.view(np.uint32) << 1, from_stored(every, FLOAT).view(np.uint32) << 1)
    rng = np.random.default_rng(0)
    x = rng.integers(0, 1 << 32, 1 << 16, dtype=np.uint32).view(np.float32)
    with np.errstate(all="ignore"):
        between = wide[:-1] + (wide[1:] - wide[:-1]) / 2
        halfway = np.concatenate([between, wide, [65519.99, 65520, -7e4, np.inf, -np.inf]])
        for numbers in (x, halfway.astype(np.float32)):
            stored = arrays.empty((len(numbers),), np.dtype(kind))
            arrays.store(stored, there(numbers))
            stored = arrays.to_host(stored)
            wanted = to_stored(numbers, np.dtype(kind))
            real = ~np.isnan(numbers)
            np.testing.assert_array_equal(stored[real].view(np.uint16), wanted[real].view(np.uint16))
            assert np.isnan(from_stored(stored, FLOAT)[~real]).all()


def test_two_parts_make_a_number(device):
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(1000) * 10.0 ** rng.integers(-30, 30, 1000)).astype(np.float32)
    high, low = split(device, x)
    assert (np.abs(high + low - x) <= 2.0**-17 * np.abs(x)).all()
    odd = np.array([np.inf, -np.inf, np.nan, 0], np.float32)
    np.testing.assert_array_equal(sum(split(device, odd)), odd)


def split(device, x):
    parts = device.xp.empty(2 * len(x), np.uint16)
    device.each("tpc_split", len(x), device.xp.asarray(x), parts)
    found = from_stored(device.to_host(parts), np.dtype(float))
    return found[: len(x)], found[len(x) :]


# --- growth ----------------------------------------------------------------------------------------------------------


def test_segments_double_and_nothing_is_copied(arrays, monkeypatch):
    monkeypatch.setattr(device_arrays, "FIRST_ROWS", 4)
    monkeypatch.setattr(device_arrays, "FIRST_BYTES", 1 << 14)
    atoms = Atoms(WIDTHS, "float32", arrays=arrays)
    rng = np.random.default_rng(0)
    whole = {n: rng.standard_normal((3000, *w)).astype(np.float32) for n, w in WIDTHS.items()}
    places = []
    for start in range(0, 3000, 10):
        atoms.append(-1.0, 1.0, **{n: arrays.xp.asarray(v[start : start + 10]) for n, v in whole.items()})
        now = [s["B"].on_host.ctypes.data for s in atoms._segments]
        assert now[: len(places)] == places
        places = now
    rooms = [len(s["B"]) for s in atoms._segments]
    assert rooms == [4 << k for k in range(10)]
    for name, value in whole.items():
        np.testing.assert_array_equal(atoms.column(name), value)
    stored = {n: np.concatenate(pieces) for n, pieces in atoms.dump().items()}
    for again in (Atoms.restore(stored.get, WIDTHS, "float32", arrays=arrays), Atoms.restore(stored.get, WIDTHS, "f4")):
        np.testing.assert_array_equal(again.column("B"), whole["B"])


def test_a_segment_takes_a_share_of_the_memory(arrays, device):
    device.total = 80 << 30
    rows = [arrays.segment_rows(0, 1620, k) for k in range(12)]
    assert rows[:3] == [41425, 82850, 165700]
    assert max(rows) * 1620 <= device.total // device_arrays.MEMORY_SHARE
    assert rows[-1] == rows[-2]


def test_memory_is_taken_by_segments(cuda_cpu):
    taken = [cuda_cpu.footprint.stored_rows(n, 1620) for n in (0, 1, 41425, 41426, 200_000)]
    assert taken == [0, 41425, 41425, 3 * 41425, 7 * 41425]
    assert cuda_cpu.footprint.stored_rows(1000, 1620, 512) == 1024


# --- loops -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storage", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("phi", [tpc.relu, tpc.erf, tpc.tanh])
def test_products_that_are_not_kept_are_computed_again(cuda_cpu, monkeypatch, phi, storage):
    problem = Problem(network(phi), batch=12)
    kept = problem.run(cuda_cpu, "float32", storage)
    calls = len(cuda_cpu.device.launches)
    for module in (device_loops, device_runtime):
        monkeypatch.setattr(module, "KEEP_SHARE", 0)
    monkeypatch.setattr(device_loops, "KEEP_BYTES", 0)
    again = problem.run(cuda_cpu, "float32", storage)
    assert len(cuda_cpu.device.launches) >= 2 * calls
    for key, value in kept.items():
        np.testing.assert_allclose(again[key], value, rtol=1e-5, atol=1e-6 * np.abs(value).max(initial=1))


def test_a_number_of_the_device_is_one_for_all_samples(programs_dir, cuda_cpu):
    """A scale that the device computed, not the host."""
    problem = Problem(tpc.load(programs_dir / "mlp.py", classes=CLASSES), batch=5)
    state, module = problem.state(cuda_cpu, "float32"), cuda_cpu.compile_module(problem.lowered)
    x = cuda_cpu.array(problem.x, "float32")
    wanted = cuda_cpu.to_numpy(module.predict(state, x)["logits"])
    for name in ("hidden1", "readout"):
        state[name].scale = cuda_cpu.array(state[name].scale, "float32")[0]
    np.testing.assert_allclose(cuda_cpu.to_numpy(module.predict(state, x)["logits"]), wanted, rtol=1e-6)


def test_the_size_of_a_chunk_changes_nothing_but_rounding(programs_dir, cuda_cpu):
    problem = Problem(tpc.load(programs_dir / "mlp.py", classes=CLASSES), count=5000, batch=4)
    small = problem.run(cuda_cpu, "float32", rows=None)
    launches = len(cuda_cpu.device.launches)
    cuda_cpu.device.cache_bytes = 1 << 30
    large = problem.run(cuda_cpu, "float32", rows=None)
    assert len(cuda_cpu.device.launches) - launches < launches
    for key, value in small.items():
        np.testing.assert_allclose(large[key], value, rtol=1e-4, atol=1e-5 * np.abs(value).max(initial=1))


# --- powers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 5, 9])
@pytest.mark.parametrize("order", [2, 3, 4])
def test_powers_and_slopes(device, rank, order):
    rng = np.random.default_rng(rank)
    made, there = DevicePowers(device), device.xp.asarray
    g = rng.standard_normal((2, 3, rank)).astype(np.float32)
    np.testing.assert_allclose(device.to_host(made.power(there(g), order)), powers.power(g, order), rtol=1e-5)
    dual = rng.standard_normal((2, 3, powers.count(rank, order))).astype(np.float32)
    for latents in (g, g[:1, :1]):
        wanted = powers.slope(dual.astype(float), latents.astype(float), order)
        found = device.to_host(made.slope(there(dual), there(latents), order))
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("order", [0, 1, 2, 3])
def test_adding_powers(arrays, monkeypatch, order):
    monkeypatch.setattr(device_arrays, "POWER_BYTES", 1 << 10)
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((40, 3)).astype(np.float32), rng.standard_normal((40, 6)).astype(np.float32)
    shape = (3, powers.count(6, order)) if order else (3,)
    wanted = rng.standard_normal(shape)
    found = arrays.xp.asarray(wanted.astype(np.float32))
    powers.add_powers(wanted, a.astype(float), b.astype(float), order)
    arrays.add_powers(found, arrays.xp.asarray(a), arrays.xp.asarray(b), order)
    np.testing.assert_allclose(arrays.to_host(found), wanted, rtol=1e-4, atol=1e-4)


# --- one look at the numbers -----------------------------------------------------------------------------------------


def test_numbers_are_read_at_once(cuda_cpu):
    there = cuda_cpu.device.xp.asarray
    numbers = [np.float32(2), 3.5, *(there(np.array(k, np.float32)) for k in range(11))]
    kinds = (np.ones((3, 4)), np.zeros((0, 2)), np.full(5, 1e38), *(np.ones(k) for k in range(9)))
    fine = [there(x.astype(np.float32)) for x in kinds]
    assert cuda_cpu.inspect(numbers, fine) == ([2.0, 3.5, *map(float, range(11))], True)
    for bad in (np.inf, -np.inf, np.nan):
        wrong = np.ones(1000, np.float32)
        wrong[777] = bad
        assert cuda_cpu.inspect([], [*fine, there(wrong)]) == ([], False)
    assert np.isnan(cuda_cpu.inspect([there(np.array(np.nan, np.float32))], [])[0][0])


def test_arrays_of_the_host_do_not_slip_in(device):
    """The arrays of this suite are as strict as CuPy's."""
    x = device.xp.asarray(np.ones(3, np.float32))
    for wrong in (lambda: np.asarray(x), lambda: x + np.ones(3), lambda: device.xp.concatenate([np.ones(3)])):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(AttributeError, match="CuPy has no errstate"):
        _ = device.xp.errstate


# --- matrix products of cuBLAS ---------------------------------------------------------------------------------------


class Pointed(np.ndarray):
    """A NumPy array that tells its address as CuPy's do."""

    @property
    def data(self):
        return SimpleNamespace(ptr=self.ctypes.data)


def pointed(x):
    return np.ascontiguousarray(x).view(Pointed)


def columns_first(address, rows, columns, kind):
    """What cuBLAS sees at an address."""
    dtype = {code: t for t, code in TYPES.items()}[kind]
    raw = (ctypes.c_char * (rows * columns * dtype.itemsize)).from_address(address)
    return np.frombuffer(raw, dtype).reshape(columns, rows).T


def gemm_ex(handle, ta, tb, m, n, k, alpha, a, a_kind, lda, b, b_kind, ldb, beta, c, c_kind, ldc, compute, algorithm):
    """cublasGemmEx by its documentation, with arrays counted columns first."""
    assert (handle, compute, algorithm) == ("handle", "in float32", "default")
    assert c_kind == TYPES[FLOAT]
    left, right = (columns_first(a, lda, m if ta else k, a_kind), columns_first(b, ldb, k if tb else n, b_kind))
    left, right = (from_stored(x, FLOAT) for x in (left, right))
    scale, keep = (ctypes.c_float.from_address(x).value for x in (alpha, beta))
    out = columns_first(c, ldc, n, FLOAT and c_kind)
    left, right = (left.T if ta else left), (right.T if tb else right)
    assert left.shape == (m, k)
    assert right.shape == (k, n)
    out[:m] = scale * left @ right + (keep * out[:m] if keep else 0)


def cuda_through(blas):
    properties = {"name": b"GPU", "l2CacheSize": 1 << 20}
    runtime = SimpleNamespace(getDevice=lambda: 0, getDeviceProperties=lambda _: properties)
    handle = SimpleNamespace(get_cublas_handle=lambda: "handle")
    return CupyDevice(SimpleNamespace(cuda=SimpleNamespace(runtime=runtime, device=handle)), blas)


@pytest.mark.parametrize("kind", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("ta", [False, True])
@pytest.mark.parametrize("tb", [False, True])
@pytest.mark.parametrize("add", [False, True])
def test_calls_of_cublas(kind, ta, tb, add):
    blas = SimpleNamespace(gemmEx=gemm_ex, CUBLAS_OP_N=0, CUBLAS_OP_T=1, CUBLAS_COMPUTE_32F="in float32",
                           CUBLAS_GEMM_DEFAULT="default")  # fmt: skip
    cuda = cuda_through(blas)
    assert (cuda.name, cuda.cache_bytes) == ("GPU", 1 << 19)
    rng = np.random.default_rng(0)
    dtype = np.dtype({"bfloat16": "uint16"}.get(kind, kind))
    a, b = (rng.standard_normal(s).astype(np.float32) for s in ((4, 7) if ta else (7, 4), (5, 4) if tb else (4, 5)))
    a, b = (pointed(to_stored(x, dtype)) for x in (a, b))
    out = pointed(rng.standard_normal((7, 5)).astype(np.float32))
    wanted = np.array(out)
    HostDevice().gemm(*(DeviceArray(x) for x in (np.array(a), np.array(b), wanted)), ta=ta, tb=tb, add=add)
    cuda.gemm(a, b, out, ta=ta, tb=tb, add=add)
    np.testing.assert_allclose(np.array(out), wanted, rtol=1e-5, atol=1e-6)


# --- memory ----------------------------------------------------------------------------------------------------------


def test_a_model_that_does_not_fit_is_refused_with_the_devices_numbers(programs_dir, cuda_cpu):
    from tpc.errors import UserError
    from tpc.runtime.models.memory import Training, require_memory

    limit = tpc.compile(tpc.load(programs_dir / "mlp.py"))
    training = Training(3072, 400, 50_000, 8, epochs=50, data_bytes=10**12, backend="cuda_cpu")
    cuda_cpu.device.total = cuda_cpu.device.free = 10**10
    with pytest.raises(UserError) as e:
        require_memory(limit, training)
    assert "It can have 10.0 GB (free memory of this machine)" in str(e.value)
    assert "--mode folded" in str(e.value)
    assert "--backend cuda_cpu --storage bfloat16" in str(e.value)
    cuda_cpu.device.total = cuda_cpu.device.free = 80 * 10**9
    assert 12e9 < require_memory(limit, training).peak < 30e9


COVERED = ({}, {"storage": "bfloat16"}, {"storage": "float16"}, {"mode": "folded"})


@pytest.mark.parametrize("options", COVERED, ids=str)
def test_the_prediction_covers_what_steps_take(programs_dir, cuda_cpu, monkeypatch, options):
    import tracemalloc

    from tpc.runtime.models.memory import Training, predict_peak

    for module, name, value in ((device_arrays, "FIRST_BYTES", 1 << 20), (device_loops, "KEEP_BYTES", 1 << 20)):
        monkeypatch.setattr(module, name, value)
    cuda_cpu.device.total, cuda_cpu.device.cache_bytes = 1 << 24, 1 << 20
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py", classes=CLASSES))
    samples, batch, rank = (700, 50, 30) if options.get("mode") else (4000, 50, 60)
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((samples, DIM)), rng.integers(0, CLASSES, samples)
    warm = limit.build(DIM, rank, backend="cuda_cpu", **options)
    warm.step(x[:batch], y[:batch], lr=0.01, clip=1.0)
    training = Training(DIM, rank, samples, batch, backend="cuda_cpu", clip=True, **options)
    predicted = predict_peak(limit, training).peak
    tracemalloc.start()
    try:
        model = limit.build(DIM, rank, backend="cuda_cpu", **options)
        for start in range(0, samples, batch):
            model.step(x[start : start + batch], y[start : start + batch], lr=0.01, clip=1.0)
        model.predict(x[:256])
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert 0.4 * predicted < taken < predicted


@pytest.mark.parametrize("count", [2, 3])
def test_products_of_latents_are_those_of_the_host(device, count):
    rng, made = np.random.default_rng(7), DevicePowers(device)
    there = device.xp.asarray
    g = [rng.standard_normal((4, 5)).astype(np.float32) for _ in range(count)]
    for factors in (g, [g[0], *g[:-1]], [g[0]] * count):
        on_device = {id(v): there(v) for v in factors}
        found = device.to_host(made.product([on_device[id(v)] for v in factors]))
        wanted = powers.product([v.astype(float) for v in factors])
        np.testing.assert_allclose(found, wanted, atol=3e-6 * np.abs(wanted).max())
    dual = rng.standard_normal((4, powers.count(5, count))).astype(np.float32)
    lower = powers.product(g[1:]).astype(np.float32) if count > 2 else g[0]
    wanted = powers.opened(dual.astype(float), lower.astype(float), count)
    found = device.to_host(made.opened(there(dual), there(lower), count))
    np.testing.assert_allclose(found, wanted, atol=3e-6 * np.abs(wanted).max())
