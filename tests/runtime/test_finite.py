"""Finite networks: the interpreter against plain NumPy, gradients against differences of the loss, projection."""

from dataclasses import dataclass

import numpy as np
import pytest

import tpc
from tpc.errors import UsageError
from tpc.passes.backward import backward
from tpc.passes.loss import attach_loss
from tpc.program import ir
from tpc.program.axes import Axis
from tpc.runtime.networks.finite import FiniteNetwork
from tpc.runtime.networks.interpret import evaluate
from tpc.runtime.networks.matrix import LowRank, Total, total

D, R, K, N, BATCH = 5, 4, 3, 12, 6


@dataclass(frozen=True, eq=False)
class Dense:
    """A matrix of another kind than the interpreter's own: its entries."""

    entries: np.ndarray

    def apply(self, x):
        return x @ self.entries.T

    def transposed(self):
        return Dense(self.entries.T)

    def scaled(self, factor):
        return Dense(factor * self.entries)


def dense(matrix):
    """The entries of a low-rank matrix."""
    return matrix.left.T @ matrix.right / matrix.right.shape[1]


def batch(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((BATCH, D)), rng.integers(0, K, BATCH)


def random_state(limit, seed=1):
    """A state with nothing special about it: no zero bias, no zero readout."""
    state = limit.build(D, R, dtype="float64", seed=0, init="paper").state()
    rng = np.random.default_rng(seed)
    return {
        name: value if name.endswith(".B") else 0.6 * rng.standard_normal(value.shape) for name, value in state.items()
    }


def mlp(x):
    h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
    h = tpc.dense(tpc.relu(h), name="hidden") + 0.3 * tpc.bias("hidden")
    return 2 * (tpc.readout(tpc.relu(h), K) + tpc.bias("readout"))


def relu(x):
    return np.maximum(x, 0)


class PlainMLP:
    """`mlp` at width n with dense weights, its gradients written out by hand."""

    def __init__(self, net):
        self.w = {name: dense(v) if isinstance(v, LowRank) else v.copy() for name, v in net.weights.items()}
        self.w["readout"] = self.w["readout"] / N  # v of size 1/n
        self.projection = {
            space: omega @ np.linalg.inv(omega.T @ omega) @ omega.T for space, omega in net.omega.items()
        }
        self.velocity = dict.fromkeys(self.w, 0.0)

    def forward(self, x):
        w = self.w
        h1 = x @ w["embed"] + 0.5 * w["embed.bias"]
        h2 = relu(h1) @ w["hidden"].T + 0.3 * w["hidden.bias"]
        return h1, h2, 2 * (relu(h2) @ w["readout"].T + w["readout.bias"])

    def gradients(self, x, y):
        w = self.w
        h1, h2, f = self.forward(x)
        p = np.exp(f - f.max(axis=1, keepdims=True))
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[np.arange(BATCH), y]).mean()
        df = 2 * (p - np.eye(K)[y]) / BATCH
        dh2 = (df @ w["readout"]) * (h2 > 0)
        dh1 = (dh2 @ w["hidden"]) * (h1 > 0)
        return loss, {
            "embed": x.T @ dh1,
            "embed.bias": 0.5 * dh1.sum(axis=0),
            "hidden": dh2.T @ relu(h1),
            "hidden.bias": 0.3 * dh2.sum(axis=0),
            "readout": df.T @ relu(h2),
            "readout.bias": df.sum(axis=0),
        }

    def step(self, x, y, lr, lr_mult, weight_decay, momentum, clip, clip_mode):
        loss, grads = self.gradients(x, y)
        in_space, hidden = self.projection["embed"], self.projection["hidden"]
        # projected, then in units whose size does not depend on n: n·∇, ∇ and ∇ for U, W and v; a norm per space axis
        scaled = {
            "embed": N * grads["embed"] @ in_space,
            "embed.bias": N * grads["embed.bias"] @ in_space,
            "hidden": hidden @ grads["hidden"],
            "hidden.bias": N * grads["hidden.bias"] @ hidden,
            "readout": grads["readout"],
            "readout.bias": grads["readout.bias"],
        }
        size = {
            "embed": 1 / N,
            "embed.bias": 1 / N,
            "hidden": 1,
            "hidden.bias": 1 / N,
            "readout": 1 / N,
            "readout.bias": 1,
        }
        norms = {name: np.sqrt((g**2).sum() * size[name]) for name, g in scaled.items()}
        whole = np.sqrt(sum(v**2 for v in norms.values()))
        for name, g in scaled.items():
            norm = whole if clip_mode == "global" else norms[name]
            factor = min(1, clip / (norm + 1e-6)) if clip else 1
            self.velocity[name] = momentum * self.velocity[name] + factor * g
            rate = lr * lr_mult.get(name, 1.0) * (1 / N if name == "readout" else 1)
            self.w[name] = (1 - lr * weight_decay) * self.w[name] - rate * self.velocity[name]
        return loss


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"lr_mult": {"embed": 0.3, "readout": 4.0}, "weight_decay": 0.05, "momentum": 0.7},
        {"clip": 0.3, "clip_mode": "param", "momentum": 0.5},
        {"clip": 0.3, "clip_mode": "global"},
    ],
)
def test_steps_are_those_of_a_network_written_by_hand(options):
    limit = tpc.compile(tpc.trace(mlp))
    net = FiniteNetwork(limit, random_state(limit), N, seed=3)
    plain = PlainMLP(net)
    settings = {"lr_mult": {}, "weight_decay": 0.0, "momentum": 0.0, "clip": None, "clip_mode": "param"} | options
    test, _ = batch(9)
    for k in range(3):
        x, y = batch(k)
        np.testing.assert_allclose(net.predict(test), plain.forward(test)[-1], rtol=1e-9, atol=1e-12)
        assert net.step(x, y, lr=0.2, **settings)["loss"] == pytest.approx(plain.step(x, y, 0.2, **settings), rel=1e-9)
    for name, value in net.weights.items():
        found = dense(value) if isinstance(value, LowRank) else value
        expected = plain.w[name] * (N if name == "readout" else 1)
        np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10)


def test_the_weights_are_those_that_the_state_stands_for():
    limit = tpc.compile(tpc.trace(mlp))
    state = random_state(limit)
    net = FiniteNetwork(limit, state, N, seed=3)
    a, b = net.omega["embed"], net.omega["hidden"]
    np.testing.assert_allclose(net.weights["embed"], (a @ state["embed.A"].T).T)
    np.testing.assert_allclose(net.weights["hidden.bias"], b @ state["hidden.bias"])
    atoms = relu(a @ state["hidden.B"].T)  # (n, M)
    np.testing.assert_allclose(dense(net.weights["hidden"]), b @ state["hidden.A"].T @ atoms.T / N)
    np.testing.assert_allclose(net.weights["readout"], (relu(b @ state["readout.B"].T) @ state["readout.A"]).T)
    np.testing.assert_array_equal(net.weights["readout.bias"], state["readout.bias"])


def test_the_seed_decides_the_network():
    limit = tpc.compile(tpc.trace(mlp))
    state = random_state(limit)
    x, _ = batch()
    one, same, other = (FiniteNetwork(limit, state, N, seed=s).predict(x) for s in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 1e-3


def smooth_residual(x):
    h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
    for _ in range(2):  # the same matrix twice
        h = h + tpc.dense(tpc.gelu(tpc.rms_norm(h)), name="block") + tpc.bias("block")
    return tpc.readout(tpc.erf(h), K) + tpc.bias("readout")


def gated(x):
    h = tpc.dense(x, name="embed")
    a, b = tpc.dense(tpc.erf(h), name="a", space="q"), tpc.dense(tpc.sin(h) + 0.5 * h, name="b", space="q")
    s = tpc.moment(a, b)
    f = tpc.readout(tpc.tanh(a) * b, K)
    return tpc.log_softmax(f * (1 + s**2) ** -0.5, "class") + tpc.bias("readout")


def two_matrices(x):
    h = tpc.dense(tpc.dense(tpc.dense(x, name="embed"), name="a"), name="b")
    return tpc.readout(tpc.silu(h), K) * tpc.moment(tpc.softplus(h))


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("network", [smooth_residual, gated, two_matrices])
def test_gradients_against_central_differences(network, loss):
    program = backward(attach_loss(tpc.trace(network), loss))  # not projected
    rng = np.random.default_rng(5)
    x, y = batch()
    leaves = {"x": x, "y": np.eye(K)[y]}
    for w in program.weights:
        if isinstance(w, ir.MatrixWeight):
            leaves[w.name] = Dense(rng.standard_normal((N, N)) / np.sqrt(N))
        else:
            shape = [D if a.name == "feature" else a.size for a in w.axes]
            leaves[w.name] = rng.standard_normal((*shape, N) if isinstance(w, ir.VectorWeight) else shape)
    grads = evaluate(program, [f"grad:{w.name}" for w in program.weights], N, leaves, {})

    def loss_with(name, value):
        return float(evaluate(program, ["loss"], N, {**leaves, name: value}, {})["loss"])

    eps = 1e-5
    for w in program.weights:
        is_matrix = isinstance(w, ir.MatrixWeight)
        value = leaves[w.name].entries if is_matrix else leaves[w.name]
        wrap = Dense if is_matrix else np.asarray
        found = grads[f"grad:{w.name}"]
        found = dense(found) if is_matrix else found
        units = N if isinstance(w, ir.VectorWeight) else 1  # the cotangent of a vector is n·∂L/∂w
        for index in [tuple(rng.integers(0, size) for size in value.shape) for _ in range(6)]:
            step = np.zeros(value.shape)
            step[index] = eps
            slope = (loss_with(w.name, wrap(value + step)) - loss_with(w.name, wrap(value - step))) / (2 * eps)
            assert found[index] == pytest.approx(units * slope, rel=1e-6, abs=1e-8), (w.name, index)


@pytest.mark.parametrize("network", [mlp, smooth_residual, gated])
def test_norms_are_those_of_the_gradients(network):
    limit = tpc.compile(tpc.trace(network))
    net = FiniteNetwork(limit, random_state(limit), N)
    program = limit.trained()
    x, y = batch()
    names = [w.name for w in program.weights]
    wanted = [f"{kind}:{name}" for kind in ("grad", "norm2") for name in names]
    bases = {space: np.linalg.qr(omega)[0] for space, omega in net.omega.items()}
    out = evaluate(program, wanted, N, {**net.weights, "x": x, "y": np.eye(K)[y]}, bases)
    for w in program.weights:
        grad = out[f"grad:{w.name}"]
        if isinstance(w, ir.MatrixWeight):
            expected = (dense(grad) ** 2).sum()
        else:
            expected = (grad**2).sum() / (N if isinstance(w, ir.VectorWeight) else 1)
        assert float(out[f"norm2:{w.name}"]) == pytest.approx(expected, rel=1e-10), w.name


def test_projection_is_the_orthogonal_one_onto_the_span_of_omega():
    rng = np.random.default_rng(2)
    omega, x = rng.standard_normal((N, R)), rng.standard_normal((BATCH, N))
    axis = Axis("sample", BATCH)
    v = ir.VectorWeight("v", tpc.trace(mlp).weights[0].space, (axis,), "readout", 1)
    program = tpc.trace(mlp).with_outputs(("p", ir.Project(v)), ("pp", ir.Project(ir.Project(v))))
    bases = {v.space.name: np.linalg.qr(omega)[0]}

    def project(value):
        out = evaluate(program, ["p", "pp"], N, {"v": value}, bases)
        np.testing.assert_allclose(out["pp"], out["p"], atol=1e-12)
        return out["p"]

    np.testing.assert_allclose(project(x), x @ omega @ np.linalg.solve(omega.T @ omega, omega.T), atol=1e-12)
    inside = rng.standard_normal((BATCH, R)) @ omega.T
    np.testing.assert_allclose(project(inside), inside, atol=1e-12)
    np.testing.assert_allclose(project(x - project(x)), 0, atol=1e-12)
    y = rng.standard_normal((BATCH, N))
    assert np.vdot(project(x), y) == pytest.approx(np.vdot(x, project(y)))


def test_matrices_of_all_kinds_add_transpose_and_scale():
    rng = np.random.default_rng(4)
    x = rng.standard_normal((2, 3, N))
    parts = [LowRank(rng.standard_normal((k, N)), rng.standard_normal((k, N))) for k in (2, 5)]
    full = Dense(rng.standard_normal((N, N)))
    joined = total(parts)
    assert isinstance(joined, LowRank)
    np.testing.assert_allclose(dense(joined), dense(parts[0]) + dense(parts[1]))
    mixed = total([parts[0], total([full, parts[1]])])
    assert isinstance(mixed, Total)
    assert len(mixed.terms) == 2
    entries = dense(joined) + full.entries
    np.testing.assert_allclose(mixed.apply(x), x @ entries.T)
    np.testing.assert_allclose(mixed.transposed().apply(x), x @ entries)
    np.testing.assert_allclose(mixed.scaled(-0.5).apply(x), -0.5 * x @ entries.T)
    np.testing.assert_allclose(joined.transposed().scaled(3.0).apply(x), 3 * x @ dense(joined))


def test_a_derivative_that_is_only_formally_a_delta_is_none():
    """elu = relu(x) + (eˣ − 1)·step(−x): the jump of the step is multiplied by zero."""

    def net(x):
        h = tpc.dense(x, name="embed")
        return tpc.readout(tpc.elu(h), K)

    program = backward(attach_loss(tpc.trace(net), "mse"))
    rng = np.random.default_rng(0)
    x, y = batch()
    u, v = rng.standard_normal((D, N)), rng.standard_normal((K, N))
    grad = evaluate(program, ["grad:embed"], N, {"x": x, "y": np.eye(K)[y], "embed": u, "readout": v}, {})["grad:embed"]
    h = x @ u
    elu, slope = np.where(h > 0, h, np.expm1(h)), np.where(h > 0, 1, np.exp(h))
    df = 2 * (elu @ v.T / N - np.eye(K)[y]) / (BATCH * K)
    np.testing.assert_allclose(grad, x.T @ (slope * (df @ v)), rtol=1e-10)


def test_a_network_with_jumps_predicts_but_cannot_be_trained():
    limit = tpc.compile(tpc.trace(lambda x: tpc.readout(tpc.step(tpc.dense(x, name="embed")), K)))
    net = FiniteNetwork(limit, random_state(limit), N)
    x, y = batch()
    h = x @ net.weights["embed"]
    np.testing.assert_allclose(net.predict(x), (h > 0) @ net.weights["readout"].T / N)
    with pytest.raises(UsageError, match=r"cannot be trained here: .* Dirac delta"):
        net.step(x, y, lr=0.1)


def test_wrong_arguments_are_told():
    limit = tpc.compile(tpc.trace(mlp))
    state = random_state(limit)
    x, y = batch()
    with pytest.raises(UsageError, match="width of at least the rank 4, got 3"):
        FiniteNetwork(limit, state, R - 1)
    with pytest.raises(UsageError, match=r"missing: hidden\.B"):
        FiniteNetwork(limit, {name: value for name, value in state.items() if name != "hidden.B"}, N)
    net = FiniteNetwork(limit, state, N)
    with pytest.raises(UsageError, match=r"weight in lr_mult called 'embd'.*Did you mean 'embed'"):
        net.step(x, y, lr=0.1, lr_mult={"embd": 1.0})
    with pytest.raises(UsageError, match=r"expected 6 class numbers or targets .*, got int64 of shape \(5,\)"):
        net.step(x, y[1:], lr=0.1)
