"""Finite networks on a device: every array is the device's, and every number that of NumPy."""

import io
import math
import sys
import tracemalloc

import numpy as np
import pytest

import tpc
from backends.device_backend import DeviceBackend
from tests.support.adapted import mlp, network, queried, support
from tests.support.cuda_cpu.device_arrays import DeviceArray
from tests.support.cuda_cpu.host_device import HostDevice
from tests.support.problems import CLASSES, DIM
from tpc.errors import UserError
from tpc.program.functions import NAMED
from tpc.runtime.models.memory import Training
from tpc.runtime.networks import library as arrays
from tpc.runtime.networks import network_memory
from tpc.runtime.networks.drawn import initialize
from tpc.runtime.networks.library import library
from tpc.runtime.networks.network_memory import predict_network, require_network_memory
from tpc.runtime.networks.parametrization import PARAMETRIZATIONS
from tpc.runtime.training.evaluation import evaluate
from tpc.runtime.training.rundir import open_run
from tpc.tasks import classify
from tpc.tasks.job import TrainJob

BACKENDS = ("numpy", "cuda_cpu")
WIDTH, RANK = 24, 4
WITHOUT_STEPS = ("step", "sign")  # which have jumps


@pytest.fixture(autouse=True)
def own_library(cuda_cpu):
    """The library of this test's device."""
    library.cache_clear()
    yield
    library.cache_clear()


def residual(x):
    h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed", 0.3)
    for _ in range(2):  # the same matrix twice
        h = h + tpc.dense(tpc.gelu(tpc.rms_norm(h)), name="block") + tpc.bias("block", 0.2)
    return tpc.readout(tpc.erf(h), CLASSES) + tpc.bias("readout", 0.1)


def gated(x):
    h = tpc.dense(x, name="embed")
    a, b = tpc.dense(tpc.erf(h), name="a", space="q"), tpc.dense(tpc.sin(h) + 0.5 * h, name="b", space="q")
    f = tpc.readout(tpc.tanh(a) * b, CLASSES)
    return tpc.log_softmax(f * (1 + tpc.moment(a, b) ** 2) ** -0.5, "class") + tpc.bias("readout", 0.2)


def pair(program, parametrization="mup", **options):
    """The same network on NumPy and on the device, in double precision."""
    rank = RANK if parametrization == "pi" else None
    options = {"parametrization": parametrization, "rank": rank, "dtype": "float64", "seed": 1, **options}
    return [tpc.finite(program, WIDTH, DIM, backend=name, **options) for name in BACKENDS]


def batch(seed, count=8):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((count, DIM)), rng.integers(0, CLASSES, count)


def same(nets, rtol=1e-9, **given):
    """Train both, and compare metrics, states, momentum and predictions."""
    atol = 1e-3 * rtol
    for k in range(3):
        x, y = batch(k)
        told = [net.step(x, y, lr=0.2, **given) for net in nets]
        for key, value in told[0].items():
            assert told[1][key] == pytest.approx(value, rel=rtol), key
    states = [net.state() for net in nets]
    for name, array in states[0].items():
        np.testing.assert_allclose(states[1][name], array, rtol=rtol, atol=atol)
        if name.endswith(".velocity"):
            continue
        assert isinstance(nets[1]._state[name], DeviceArray)
        assert nets[1]._state[name].dtype == nets[1].dtype
    x, _ = batch(9, 40)
    shown = {key: given[key] for key in ("support",) if key in given}
    np.testing.assert_allclose(nets[1].predict(x, **shown), nets[0].predict(x, **shown), rtol=rtol, atol=atol)


@pytest.mark.parametrize("parametrization", PARAMETRIZATIONS)
@pytest.mark.parametrize("program", [residual, gated])
def test_training_is_that_of_numpy(program, parametrization):
    init = "paper" if parametrization == "pi" else None
    same(pair(tpc.trace(program), parametrization, init=init), momentum=0.5, weight_decay=0.1, clip=0.3)


def test_single_precision_stays_single(monkeypatch):
    monkeypatch.setattr(arrays, "ADDED", 100)  # so that a weight takes several parts
    same(pair(tpc.trace(residual), dtype="float32"), rtol=2e-3, momentum=0.5, clip=0.3)


@pytest.mark.parametrize("name", [name for name in NAMED if name not in WITHOUT_STEPS])
def test_every_nonlinearity_is_that_of_numpy(name):
    def one_layer(x):
        h = tpc.dense(x, name="embed") + tpc.bias("embed", 0.3)
        return tpc.readout(tpc.nonlin(f"{name}(x)")(0.5 * tpc.dense(h, name="hidden")), CLASSES)

    same(pair(tpc.trace(one_layer)), loss="mse")


@pytest.mark.parametrize(("layers", "order"), [("readout", 2), ("all", 2), ("all", 1)])
@pytest.mark.parametrize("parametrization", ["mup", "pi"])
def test_adapting_is_that_of_numpy(layers, order, parametrization):
    program = network(mlp("tpc.gelu"), f"steps=2, step_size=0.25, layers={layers!r}, order={order}")
    nets = pair(program, parametrization, init="paper" if parametrization == "pi" else None)
    x, y = queried()
    for _ in range(3):
        told = [net.step(x, y, lr=0.1, support=support()) for net in nets]
        assert told[1]["loss"] == pytest.approx(told[0]["loss"], rel=1e-9)
    expected, found = (net.predict(x, support=support()) for net in nets)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)


def test_a_file_is_read_by_both(tmp_path):
    nets = pair(tpc.trace(residual))
    x, y = batch(0)
    nets[1].step(x, y, lr=0.1, momentum=0.5)
    nets[1].save(tmp_path / "net.npz")
    loaded = [tpc.Network.load(tmp_path / "net.npz", backend=name) for name in BACKENDS]
    for net in (*loaded, nets[1]):
        net.step(x, y, lr=0.1, momentum=0.5)
    for name, array in nets[1].state().items():
        for net in loaded:
            np.testing.assert_allclose(net.state()[name], array, rtol=1e-9, atol=1e-12)


# --- memory and runs -------------------------------------------------------------------------------------------------


def test_a_network_that_does_not_fit_is_refused_with_the_devices_numbers(programs_dir, cuda_cpu):
    net = tpc.Network(tpc.load(programs_dir / "mlp.py"), 8192, 3072, backend="cuda_cpu")
    training = Training(input_dim=3072, rank=1, samples=1000, batch=8, data_bytes=10**12)
    prediction = predict_network(net, training)
    assert prediction.parts["weights"] == 4 * (8192 * (3072 + 8192 + 10 + 2) + 10)
    assert "data set" not in prediction.parts
    assert "Python and libraries" not in prediction.parts
    cuda_cpu.device.free = prediction.peak - 1
    with pytest.raises(UserError, match=r"width 8192 needs .*\(free memory of this machine\). Take a smaller --width"):
        require_network_memory(net, training)
    cuda_cpu.device.free = prediction.peak
    assert require_network_memory(net, training) == prediction


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_prediction_covers_what_steps_take(programs_dir, monkeypatch, momentum):
    monkeypatch.setattr(network_memory, "ADDED", 1 << 16)
    monkeypatch.setattr(arrays, "ADDED", 1 << 16)
    net = tpc.Network(tpc.load(programs_dir / "mlp.py"), 1000, 300, backend="cuda_cpu")
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((300, 300), dtype=np.float32), rng.integers(0, 10, 300)
    given = {"lr": 0.01, "momentum": momentum}
    initialize(net, 0)
    net.step(x[:32], y[:32], **given)  # what is made once
    before = net.nbytes
    tracemalloc.start()
    try:
        net.load_state(net.state())
        tracemalloc.reset_peak()
        for k in range(2):
            net.step(x[32 * k : 32 * k + 32], y[32 * k : 32 * k + 32], **given)
        evaluate(net, x, y)
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    training = Training(input_dim=300, rank=1, samples=300, batch=32, momentum=momentum)
    assert net.nbytes == before
    assert 0.6 < taken / predict_network(net, training).peak < 1.0


def test_a_run_is_that_of_numpy_and_goes_on_there(programs_dir, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "backends.cupy_backend", DeviceBackend("cupy", HostDevice))
    shown = {}
    for backend in ("numpy", "cupy"):
        job = TrainJob(str(programs_dir / "mlp.py"), backend=backend, width=48, lr=0.2, epochs=1, limit_train_size=600)
        shown[backend] = classify.train(job, tmp_path / backend, False, io.StringIO())
    first, second = (shown[name].evaluation for name in ("numpy", "cupy"))
    assert second.loss == pytest.approx(first.loss, rel=1e-4)
    assert second.loss < math.log(10)
    told = classify.resume(open_run(tmp_path / "cupy"), {"epochs": 2, "backend": "numpy"}, io.StringIO())
    assert told.evaluation.loss < second.loss
