"""Kernel limits on a device: the numbers of NumPy, whatever the nonlinearity, the type and the block."""

from dataclasses import replace

import numpy as np
import pytest

import tpc
from backends.device_kernels import DeviceKernelCode
from tests.support.cuda_cpu.device_arrays import DeviceArray
from tpc.program.functions import NAMED
from tpc.tasks import regress
from tpc.tasks.regress import RegressJob

PRECISION = {"float64": 1e-12, "float32": 5e-6}  # of √(K(x, x) K(y, y))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(DeviceKernelCode, "ROWS", 16)
    monkeypatch.setattr(DeviceKernelCode, "COLUMNS", 24)


def residual(x):
    h = tpc.dense(x, "embed", 1.3) + tpc.bias("embed", 0.2)
    h = h + tpc.dense(tpc.relu(tpc.rms_norm(h)), "block", 1.1)
    return tpc.readout(tpc.gelu(h), 2) + tpc.bias("readout", 0.3)


def data(count=50, width=7, seed=0):
    """Random rows with repeated, opposite, zero, long and short ones."""
    x = np.random.default_rng(seed).standard_normal((count, width))
    x[3], x[4], x[5], x[6], x[7] = x[0], -x[1], 0, 30 * x[2], 1e-3 * x[2]
    return x


def compare(limit, x, y=None, dtype="float64"):
    wanted = limit.kernel(x, y)
    sizes = [limit.kernel_diagonal(z) for z in (x, x if y is None else y)]
    for kind, found in limit.kernel(x, y, backend="cuda_cpu", dtype=dtype).items():
        assert found.dtype == np.dtype(dtype)
        scale = np.sqrt(np.outer(sizes[0][kind], sizes[1][kind])) + 1e-30
        assert (np.abs(found - wanted[kind]) / scale).max() < PRECISION[dtype], kind


@pytest.mark.parametrize("dtype", PRECISION)
def test_every_block_is_that_of_numpy(cuda_cpu, dtype):
    limit = tpc.compile(tpc.trace(residual), limit="ntk")
    compare(limit, data(), dtype=dtype)
    compare(limit, data(), data(30, seed=1), dtype)
    half = limit.kernel(data(), backend="cuda_cpu", dtype=dtype)
    np.testing.assert_array_equal(half["ntk"], half["ntk"].T)


@pytest.mark.parametrize("name", [name for name in NAMED if name not in ("step", "sign")])
def test_every_nonlinearity_is_that_of_numpy(cuda_cpu, name):
    def one_layer(x):
        return tpc.readout(tpc.nonlin(f"{name}(x)")(0.5 * tpc.dense(x, name="embed")), 2)

    limit = tpc.compile(tpc.trace(one_layer), limit="ntk")
    x = np.clip(data(), -3, 3)
    for dtype in PRECISION:
        compare(limit, x, dtype=dtype)


def test_pairs_are_computed_on_the_device(cuda_cpu, monkeypatch):
    limit = tpc.compile(tpc.trace(residual), limit="nngp")
    seen = []
    whole = cuda_cpu.device.to_host
    monkeypatch.setattr(cuda_cpu.device, "to_host", lambda x: seen.append(x) or whole(x))
    limit.kernel(data(), backend="cuda_cpu")
    assert len(seen) > 6
    assert all(isinstance(x, DeviceArray) for x in seen)


def test_regression_takes_the_kernel_of_the_device(programs_dir, tmp_path, cuda_cpu):
    job = RegressJob(str(programs_dir / "mlp.py"), limit_train_size=120, ridges=(1e-2,))
    found = [regress.regress(replace(job, backend=name), None, False, str).chosen for name in ("numpy", "cuda_cpu")]
    assert found[1].test_accuracy == pytest.approx(found[0].test_accuracy, abs=0.01)
    assert found[0].test_accuracy > 0.6
