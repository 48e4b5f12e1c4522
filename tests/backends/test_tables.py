"""Kernels without a closed form in generated code: the same numbers from every backend, or a refusal."""

from __future__ import annotations

import numpy as np
import pytest

import tpc
from backends import numpy_runtime
from tests.gaussian.test_domain import FUNCTIONS, kinds
from tests.support import gaussian_pairs as reference
from tpc.errors import UserError
from tpc.gaussian import kernel
from tpc.program.expression import parse_nonlinearity
from tpc.runtime.models.model import build

BACKENDS = ("numpy", "native", "cuda_cpu")


def network(phi, classes=3):
    def deep(x):
        h = tpc.dense(tpc.nonlin(phi)(tpc.dense(x, name="embed")), name="hidden")
        return tpc.readout(tpc.nonlin(phi)(h), classes, name="readout")

    return tpc.trace(deep)


@pytest.mark.parametrize("name", [n for n in FUNCTIONS if n != "elu(x, 2)"])
def test_devices_and_hosts_read_the_same_tables(cuda_cpu, name):
    """Blocks of many cells, of variances from 1e-8 on, in both number types."""
    from backends.device_kernels import DeviceKernelRuntime

    device = cuda_cpu.device
    rng = np.random.default_rng(0)
    k = next(iter(kinds(name).values()))
    top = np.log10(min(FUNCTIONS[name][1], 1e6))
    p, q = 10 ** rng.uniform(-2, top, (7, 1)), 10 ** rng.uniform(-2, top, (1, 9))
    p[0], q[0, 0] = 1e-8, 0
    c = np.sqrt(p) * np.sqrt(q) * np.clip(rng.uniform(-1.1, 1.1, (7, 9)), -1 + 1e-5, 1 - 1e-5)
    wanted = k.numeric(p, q, c)
    scale = np.sqrt(np.diag(k.numeric(p, p.T, np.sqrt(p * p.T))))[:, None]
    scale = scale * np.sqrt(np.diag(k.numeric(q.T, q, np.sqrt(q * q.T)))) + 1e-30
    host = numpy_runtime.tabulated(name, name)
    there = DeviceKernelRuntime(device).tabulated(name, name)
    for dtype, bound in ((np.float64, 1e-10), (np.float32, 2e-5)):
        arrays = [x.astype(dtype) for x in (p, q, c)]
        exact = wanted if dtype == np.float64 else k.numeric(*(x.astype(np.float64) for x in arrays))
        on_device = device.to_host(there(*map(device.xp.asarray, arrays)))
        for found, kind in ((host(*arrays), dtype), (on_device, np.float64)):  # kernel limits are computed in doubles
            assert found.dtype == kind
            assert np.max(np.abs(found - exact) / scale) < bound


def test_the_ntk_of_tanh_at_large_variances():
    """Two inputs of variance 576 and correlation ½; κ of one layer is V[φ,φ] + c V[φ′,φ′]."""

    def shallow(x):
        return tpc.readout(tpc.tanh(tpc.dense(x, name="embed")), 1, name="readout")

    phi = parse_nonlinearity("tanh")
    wanted = reference.value(phi, phi, 576, 576, 288) + 288 * reference.value(phi.diff(), phi.diff(), 576, 576, 288)
    assert wanted == pytest.approx(0.69966434835, rel=1e-10)
    x = 24 * np.sqrt(2) * np.array([[1.0, 0.0], [0.5, np.sqrt(0.75)]])
    limit = tpc.compile(tpc.trace(shallow), limit="ntk")
    found = limit.kernel(x)
    assert found["ntk"][0, 1] == pytest.approx(wanted, rel=1e-9)


@pytest.mark.parametrize("scale", [0.01, 1.0, 30.0])
def test_training_at_every_scale_of_the_inputs(cuda_cpu, scale):
    rng = np.random.default_rng(0)
    x, y = scale * rng.standard_normal((12, 6)), rng.integers(0, 3, 12)
    limit = tpc.compile(network("silu(x)"))
    found = {}
    for name in BACKENDS:
        model = build(limit, 6, 8, dtype="float32", backend=name, seed=1)
        for _ in range(3):
            model.step(x, y, lr=0.1 / max(1, scale))
        found[name] = model.predict(x)
    model = build(limit, 6, 8, dtype="float64", seed=1)
    for _ in range(3):
        model.step(x, y, lr=0.1 / max(1, scale))
    exact = model.predict(x)
    for name in BACKENDS:
        assert np.abs(found[name] - exact).max() < 3e-5 * np.abs(exact).max(), name


@pytest.mark.parametrize("name", BACKENDS)
def test_beyond_the_domain_nothing_is_computed(cuda_cpu, name):
    rng = np.random.default_rng(0)
    x, y = 100 * rng.standard_normal((40, 6)), rng.integers(0, 3, 40)
    network_of = network("sin(x)*tanh(x)")
    model = build(tpc.compile(network_of), 6, 8, backend=name, seed=1)
    kernels = tpc.compile(network_of, limit="ntk")
    known = kernel(parse_nonlinearity("sin(x)*tanh(x)")).numeric.largest[0]
    for call in (
        lambda: model.predict(x),
        lambda: model.step(x, y, lr=0.1),
        lambda: kernels.kernel(x, backend=name),
        lambda: kernels.kernel(x[:3], x, backend=name, dtype="float32"),
        lambda: kernels.kernel_diagonal(x, backend=name),
    ):
        wanted = rf"(?s)for variances of its arguments up to {known:g}, got .*(Fix|At the first step): scale"
        with pytest.raises(UserError, match=wanted):
            call()
    assert np.isfinite(model.predict(x / 1000)).all()
