"""A step that is not finite is told, names its weight, changes nothing, and the model goes on afterwards."""

import numpy as np
import pytest

import tpc
from tests.support.problems import CLASSES, DIM, batch
from tpc.errors import UsageError, UserError
from tpc.runtime.kernels.gradient_flow import flow_coefficients
from tpc.runtime.kernels.regression import KernelRegression
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.networks.finite import FiniteNetwork
from tpc.runtime.training.evaluation import evaluate

X, Y = batch()


def gelu(x):
    h = tpc.dense(x, "embed") + tpc.bias("embed")
    return tpc.readout(tpc.gelu(tpc.dense(tpc.gelu(h), "hidden1")), CLASSES)


def swiglu(x):
    h = tpc.dense(x, "embed", space="stream")
    for k in range(2):
        g, u = tpc.dense(h, f"gate{k}"), tpc.dense(h, f"up{k}")
        h = h + tpc.dense(tpc.silu(g) * u, f"down{k}", space="stream")
    return tpc.readout(h, CLASSES)


@pytest.fixture(params=["numpy", "native", "cuda_cpu"])
def name(request):
    if request.param == "cuda_cpu":
        request.getfixturevalue("cuda_cpu")
    return request.param


def built(network, name="numpy", **options):
    return tpc.compile(tpc.trace(network)).build(DIM, 4, **{"backend": name, "init": "paper", **options})


def refused(model, message, x=X, y=Y, **options):
    """The error of a step that changes nothing, after which training goes on."""
    before, nbytes = model.state(), model.nbytes
    with pytest.raises(DivergedError, match=message) as caught:
        model.step(x, y, **{"lr": 0.1, **options})
    for key, value in model.state().items():
        np.testing.assert_array_equal(value, before[key], err_msg=key)
    assert model.nbytes == nbytes
    assert np.isfinite(model.step(X, Y, lr=0.01)["loss"])
    assert caught.value.exit_code == 1
    return caught.value


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("mode", [{}, {"mode": "folded", "fold": FoldOptions(degree=2, window=0)}])
def test_a_gradient_that_is_not_finite(name, mode, momentum):
    error = refused(built(gelu, name, **mode), "the step was not taken.*lower lr", x=X * 1e25, momentum=momentum)
    assert error.quantity in ("loss", "the gradient", "the latent to be stored (B)")


def test_a_gate_that_explodes_is_told_and_names_a_weight(name):
    model = built(swiglu, name)

    def explode():
        for _ in range(40):
            model.step(X, Y, lr=100.0)

    with pytest.raises(DivergedError, match=r"the step was not taken.*(gate|up|down|embed|readout|kernel cannot be)"):
        explode()
    assert all(np.isfinite(v).all() for v in model.state().values())


def test_a_norm_that_is_not_finite_does_not_stop_training_silently(name):
    error = refused(built(gelu, name), "the gradient norm of embed is inf", x=X * 1e3, y=Y + 1e18, clip=1.0, loss="mse")
    assert (error.weight, error.quantity) == ("embed", "the gradient norm")


def test_an_update_beyond_the_numbers(name):
    error = refused(built(gelu, name), r"the update of \S+ would reach \S+, beyond float32", lr=1e42)
    assert error.quantity == "the update"
    assert error.weight in ("embed", "hidden1", "readout", "embed.bias")


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_numbers_that_16_bits_do_not_hold(name, momentum):
    model = built(gelu, name, storage="float16")
    error = refused(model, r"beyond float16 \(6\.55e\+04\); a wider --storage holds more", x=X * 1e5, momentum=momentum)
    assert error.weight in ("hidden1", "readout")


def test_folded_tensors_do_not_overflow():
    model = built(gelu, mode="folded", fold=FoldOptions(degree=3, window=300), dtype="float32")
    state = model.state()
    for column, value in (("A", 1e30), ("B", 1e12)):
        state[f"hidden1.{column}"] = np.full((600, 4), value, np.float32)
    before = model.state()
    with pytest.raises(UsageError, match=r"atoms of the state cannot be folded: degree \d would reach"):
        model.load_state(state)
    for key, value in model.state().items():
        np.testing.assert_array_equal(value, before[key])


def test_decay_that_grows_is_refused():
    with pytest.raises(UsageError, match=r"expected lr·weight_decay ≤ 2, got 1·3.*at most 2"):
        built(gelu).step(X, Y, lr=1.0, weight_decay=3.0)


def test_few_shot_training(programs_dir, name):
    model = tpc.compile(tpc.load(programs_dir / "maml.py")).build(DIM, 4, backend=name)
    support = tpc.Support(X, np.arange(4))
    before = model.state()
    with pytest.raises(DivergedError, match="the step was not taken"):
        model.step(X * 1e30, np.arange(4), support=support, lr=0.1)
    for key, value in model.state().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("parametrization", ["mup", "ntk", "standard", "pi"])
def test_finite_networks(parametrization):
    rank = {"rank": 4, "init": "paper"} if parametrization == "pi" else {}
    net = tpc.finite(tpc.trace(gelu), 16, DIM, parametrization=parametrization, **rank)
    refused(net, "the step was not taken", x=X * 1e30, loss="mse")
    assert refused(net, "the gradient norm of embed is", x=X * 1e3, y=Y + 1e18, clip=1.0, loss="mse").weight == "embed"
    error = refused(net, r"the update of \S+ would reach", lr=1e44)
    assert error.weight in net.weights


def test_networks_of_a_check():
    limit = tpc.compile(tpc.trace(gelu))
    net = FiniteNetwork(limit, limit.build(DIM, 4, init="paper").state(), 16)
    before = dict(net.weights)
    for x, options in ((X * 1e200, {}), (X * 1e80, {"clip": 1.0})):
        with pytest.raises(DivergedError, match="the step was not taken"):
            net.step(x, Y, lr=0.1, loss="mse", **options)
    assert all(net.weights[key] is value for key, value in before.items())


def test_outputs_that_are_not_finite_have_no_metrics():
    class Broken:
        def predict(self, x):
            return np.where(np.arange(len(x))[:, None] == 2, np.nan, np.zeros((len(x), 3)))

    with pytest.raises(DivergedError, match=r"outputs of 1 of 4 samples are not finite \(the first is sample 2\)"):
        evaluate(Broken(), X, np.zeros(4, int))


def test_inputs_beyond_float32(name):
    for call in (lambda m: m.predict(X * 1e200), lambda m: m.step(X * 1e200, Y, lr=0.1)):
        with pytest.raises(UsageError, match=r"inputs in the range of float32, up to 3\.4e\+38, got .*dtype float64"):
            call(built(gelu, name))


def test_kernels_that_are_not_finite():
    def kernel(a, b=None, out=None):
        with np.errstate(all="ignore"):
            made = a @ (a if b is None else b).T
        if out is not None:
            out[...] = made
        return made

    x = np.ones((3, 2), np.float32)
    x[1] = 3e30
    with pytest.raises(UserError, match=r"kernel of samples 0 and 1|kernel of samples 1 and 1.*is inf in float32"):
        KernelRegression(kernel, x, np.arange(3), 3)
    with np.errstate(all="ignore"), pytest.raises(DivergedError, match=r"gradient flow for a time 1 is not finite"):
        flow_coefficients(lambda v: np.float32(3e38) * 10 * v, np.ones((3, 1), np.float32), 1.0)
    with pytest.raises(UsageError, match="finite targets"):
        flow_coefficients(lambda v: v, np.full((3, 1), np.nan), 1.0)
