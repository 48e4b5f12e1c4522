"""The reference itself, by routes that do not share its formulas.

δ and the dense gradients against central differences; gradient norms against finite width and against the
rate at which a step lowers the loss; whole trajectories against projected SGD at growing width.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference.paper_mlp import Array, PaperMLP, angles, batch_loss, clip_factors, initial_state, kernel

SCALES = {"input_scale": 1.3, "output_scale": 0.5, "bias_scale": 0.7}
D, R, K = 6, 5, 3


def problem(depth: int, seed: int = 0, batch: int = 5) -> tuple[PaperMLP, Array, np.ndarray]:
    """A model whose biases and atom norms are not trivial, and a batch."""
    rng = np.random.default_rng(seed)
    state = initial_state(D, R, K, depth, seed)
    for name in state:
        if name.endswith(".bias"):
            state[name] = rng.standard_normal(state[name].shape)
        if name.endswith(".B"):
            state[name] = state[name] * rng.uniform(0.5, 2, (R, 1))
    state["readout.A"] = rng.standard_normal((R, K))
    return PaperMLP(state, depth, **SCALES), rng.standard_normal((batch, D)), rng.integers(K, size=batch)


def central_difference(f, at: Array, h: float = 1e-5) -> Array:
    """∂f/∂at, entry by entry."""
    out = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        up, down = at.copy(), at.copy()
        up[index] += h
        down[index] -= h
        out[index] = (f(up) - f(down)) / (2 * h)
    return out


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("depth", [1, 2, 3])
def test_delta_is_the_derivative_with_respect_to_every_latent(depth, loss):
    model, x, y = problem(depth)
    found = model.gradients(x, y, loss)
    for before, layer in zip(model.layers, model.layers[1:]):

        def loss_from(latent, layer=layer):
            return batch_loss(model.predict_from(layer, latent), y, loss)[0]

        numeric = central_difference(loss_from, found.latents[layer])
        np.testing.assert_allclose(found.delta[before], numeric * model.scale[before], atol=2e-9)
    outputs = model.predict(x)
    numeric = central_difference(lambda f: batch_loss(f, y, loss)[0], outputs)
    np.testing.assert_allclose(found.delta["readout"], numeric * SCALES["output_scale"], atol=2e-9)


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_dense_gradients_are_derivatives(loss):
    depth = 3
    model, x, y = problem(depth, seed=1)
    found = model.gradients(x, y, loss)
    assert set(found.dense) == {"embed.A", *(f"{layer}.bias" for layer in model.layers)}
    for name, analytic in found.dense.items():

        def loss_at(value, name=name):
            changed = PaperMLP(model.state() | {name: value}, depth, **SCALES)
            return batch_loss(changed.predict(x), y, loss)[0]

        np.testing.assert_allclose(analytic, central_difference(loss_at, model.state()[name]), atol=2e-9)


def test_soft_labels_and_class_numbers_agree():
    model, x, y = problem(2)
    for loss in ("cross_entropy", "mse"):
        one, two = model.gradients(x, y, loss), model.gradients(x, np.eye(K)[y], loss)
        assert one.loss == two.loss
        np.testing.assert_array_equal(one.delta["embed"], two.delta["embed"])


def test_kernel_is_the_gaussian_expectation():
    rng = np.random.default_rng(2)
    g, b = rng.standard_normal((3, R)), rng.standard_normal((4, R))
    z = rng.standard_normal((400_000, R))
    u, v = np.maximum(z @ g.T, 0), np.maximum(z @ b.T, 0)
    products = u[:, :, None] * v[:, None, :]
    z_score = (products.mean(0) - kernel(g, b)) / (products.std(0) / np.sqrt(len(z)))
    assert np.abs(z_score).max() < 4


def test_angles_at_the_edges():
    tiny = 1e-9
    v = np.array([[1.0, 0.0], [-1.0, 0.0], [np.cos(tiny), np.sin(tiny)], [0.0, 0.0]])
    np.testing.assert_allclose(angles(v[:1], v)[0], [0, np.pi, tiny, np.pi / 2], rtol=1e-12, atol=0)


def test_a_zero_latent_gives_finite_values_and_no_gradient():
    model, x, y = problem(2)
    state = model.state()
    state["embed.bias"][:] = 0
    model = PaperMLP(state, 2, **SCALES)
    x[0] = 0
    found = model.gradients(x, y)
    assert np.isfinite(found.loss)
    np.testing.assert_array_equal(found.delta["embed"][0], 0)
    model.step(x, y, lr=0.1, clip=0.1)
    assert all(np.isfinite(value).all() for value in model.state().values())


@pytest.mark.parametrize("depth", [2, 3])
def test_a_step_lowers_the_loss_at_the_rate_of_the_squared_norms(depth):
    """dL/dη at η = 0 is −Σ_p mult_p ‖∇_p‖² : ties appended atoms, multipliers and norms together."""
    model, x, y = problem(depth, seed=3)
    mult = {"embed": 0.1, "readout": 4.0, "hidden1.bias": 0.5}
    norms = model.gradients(x, y).norms
    expected = -sum(mult.get(name, 1.0) * norm**2 for name, norm in norms.items())

    def loss_after(lr: float) -> float:
        stepped = PaperMLP(model.state(), depth, **SCALES)
        stepped.step(x, y, lr=lr, lr_mult=mult)
        return batch_loss(stepped.predict(x), y, "cross_entropy")[0]

    h = 1e-4
    measured = (loss_after(h) - loss_after(-h)) / (2 * h)
    assert measured == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("mode", ["param", "global"])
def test_clipping_bounds_the_update(mode):
    norms = {"a": 3.0, "b": 4.0, "c": 0.1}
    factor = clip_factors(norms, 1.0, mode)
    after = {name: factor[name] * norm for name, norm in norms.items()}
    if mode == "param":
        assert after == pytest.approx({"a": 1.0, "b": 1.0, "c": 0.1}, rel=1e-5)
    else:
        assert np.linalg.norm(list(after.values())) == pytest.approx(1.0, rel=1e-5)
    assert set(clip_factors(norms, None, mode).values()) == {1.0}


@pytest.mark.parametrize("follows", [False, True])
def test_decay_without_a_gradient_path(follows):
    """Readout coefficients of zero pass nothing back, so hidden layers show the decay alone."""
    state = initial_state(D, R, K, 2, 0, readout="zero")
    model = PaperMLP(state, 2)
    _, x, y = problem(2)
    model.step(x, y, lr=0.5, lr_mult={"embed": 0.1}, weight_decay=0.2, decay_follows_lr_mult=follows)
    after = model.state()
    np.testing.assert_allclose(after["hidden1.A"][:R], state["hidden1.A"] * 0.9, rtol=1e-14)
    np.testing.assert_allclose(after["embed.A"], state["embed.A"] * (0.99 if follows else 0.9), rtol=1e-14)
    np.testing.assert_allclose(np.linalg.norm(after["readout.B"], axis=1), 1, rtol=1e-14)


def test_momentum_weights_an_atom_by_its_age():
    """With gradients fixed by a zero readout rate, atom of age a has coefficient −η(1 + μ + … + μᵃ)."""
    model, x, y = problem(2, seed=4, batch=1)
    lr, mu, frozen = 1e-3, 0.6, dict.fromkeys(["embed", "embed.bias", "hidden1", "hidden1.bias"], 0.0)
    first = model.gradients(x, y)
    row = first.delta["readout"] * np.linalg.norm(first.latents["readout"])
    for _ in range(3):
        model.step(x, y, lr=lr, lr_mult=frozen, momentum=mu)
    newest = model.state()["readout.A"][R:]
    np.testing.assert_allclose(newest[0], -lr * (1 + mu + mu**2) * row[0], rtol=1e-12)
    np.testing.assert_array_equal(model.state()["hidden1.A"][R:], 0)


def test_wrong_names_are_refused():
    model, x, y = problem(2)
    with pytest.raises(ValueError, match="hidden2"):
        model.step(x, y, lr=0.1, lr_mult={"hidden2": 1.0})
    with pytest.raises(ValueError, match="depth 3"):
        PaperMLP(model.state(), 3)


class FiniteNetwork:
    """The same MLP at width n: Ω per space, dense matrices, autograd by hand, projected SGD in μ scaling."""

    def __init__(self, model: PaperMLP, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        state = model.state()
        self.layers, self.scale, self.bias_scale, self.n = model.layers, model.scale, model.bias_scale, n
        self.omega = {layer: rng.standard_normal((n, R)) for layer in self.layers[:-1]}
        self.basis = {layer: np.linalg.qr(omega)[0] for layer, omega in self.omega.items()}
        self.weight, self.bias = {}, {}
        before = None
        for layer in self.layers:
            out = self.omega.get(layer, np.eye(K))
            if layer == "embed":
                self.weight[layer] = out @ state["embed.A"].T
            else:
                atoms = np.maximum(self.omega[before] @ state[f"{layer}.B"].T, 0)
                self.weight[layer] = out @ (state[f"{layer}.A"].T @ atoms.T) / n
            self.bias[layer] = out @ state[f"{layer}.bias"]
            before = layer
        self.velocity = dict.fromkeys(self.parameters(), 0.0)

    def parameters(self) -> dict[str, Array]:
        return self.weight | {f"{layer}.bias": value for layer, value in self.bias.items()}

    def forward(self, x: Array) -> tuple[dict[str, Array], Array]:
        entering = {}
        for layer in self.layers:
            entering[layer] = x
            x = self.scale[layer] * (x @ self.weight[layer].T + self.bias_scale * self.bias[layer])
            if layer != "readout":
                x = np.maximum(x, 0)
        return entering, x

    def predict(self, x: Array) -> Array:
        return self.forward(x)[1]

    def gradients(self, x: Array, y: np.ndarray) -> tuple[dict[str, Array], dict[str, float]]:
        """Projected gradients, scaled so that all move at one rate, and their norms in function space."""
        entering, outputs = self.forward(x)
        into = batch_loss(outputs, y, "cross_entropy")[1]
        gradient, norms = {}, {}
        after = None
        for layer in reversed(self.layers):
            d = self.scale[layer] * (into if after is None else into * (entering[after] > 0))
            into = d @ self.weight[layer]
            if layer != "readout":
                basis = self.basis[layer]
                d = (d @ basis) @ basis.T
            gradient[layer] = d.T @ entering[layer]
            gradient[f"{layer}.bias"] = self.bias_scale * d.sum(0)
            speed = {"embed": self.n, "readout": 1 / self.n}.get(layer, 1.0)
            bias_speed = 1.0 if layer == "readout" else self.n
            for name, factor in ((layer, speed), (f"{layer}.bias", bias_speed)):
                # ‖∇‖² · rate is what a step of that rate takes off the loss
                norms[name] = float(np.linalg.norm(gradient[name]) * np.sqrt(factor))
                gradient[name] = gradient[name] * factor
            after = layer
        return gradient, norms

    def step(self, x, y, *, lr, lr_mult, weight_decay, clip, clip_mode, momentum) -> None:
        gradient, norms = self.gradients(x, y)
        factor = clip_factors(norms, clip, clip_mode)
        for name, value in self.parameters().items():
            self.velocity[name] = momentum * self.velocity[name] + factor[name] * gradient[name]
            value *= 1 - lr * weight_decay
            value -= lr * lr_mult.get(name, 1.0) * self.velocity[name]


WIDTHS, SEEDS = (128, 256, 512, 1024), 12


def slope(errors: list[float]) -> float:
    """Exponent of the error as a power of the width."""
    return float(np.polyfit(np.log(WIDTHS), np.log(errors), 1)[0])


def test_norms_are_the_limit_of_the_projected_gradients():
    model, x, y = problem(3, seed=5)
    expected = np.array(list(model.gradients(x, y).norms.values()))
    names = list(model.gradients(x, y).norms)
    errors = []
    for n in WIDTHS:
        found = [FiniteNetwork(model, n, n + seed).gradients(x, y)[1] for seed in range(SEEDS)]
        measured = np.array([[norms[name] for name in names] for norms in found])
        errors.append(float(np.sqrt(np.mean((measured / expected - 1) ** 2))))
    assert errors[-1] < 0.2
    assert -0.7 < slope(errors) < -0.3


STEPS = 4
SETTINGS = {
    "plain": {"lr_mult": {}, "weight_decay": 0.0, "clip": None, "clip_mode": "param", "momentum": 0.0},
    "param": {
        "lr_mult": {"embed": 0.1, "readout": 4.0, "readout.bias": 0.5},
        "weight_decay": 0.05,
        "clip": 0.2,
        "clip_mode": "param",
        "momentum": 0.0,
    },
    "global": {
        "lr_mult": {"embed": 0.5, "hidden1": 2.0},
        "weight_decay": 0.02,
        "clip": 0.4,
        "clip_mode": "global",
        "momentum": 0.8,
    },
}


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("setting", SETTINGS)
def test_projected_sgd_converges_to_the_limit(setting, depth):
    rng = np.random.default_rng(6)
    batches = [(rng.standard_normal((4, D)), rng.integers(K, size=4)) for _ in range(STEPS)]
    probe = rng.standard_normal((8, D))
    start, _, _ = problem(depth, seed=7)
    limit = PaperMLP(start.state(), depth, **SCALES)
    for x, y in batches:
        limit.step(x, y, lr=0.5, **SETTINGS[setting])
    moved = limit.predict(probe) - start.predict(probe)
    errors = []
    for n in WIDTHS:
        squares = []
        for seed in range(SEEDS):
            network = FiniteNetwork(start, n, n + seed)
            for x, y in batches:
                network.step(x, y, lr=0.5, **SETTINGS[setting])
            squares.append(np.mean((network.predict(probe) - limit.predict(probe)) ** 2))
        errors.append(float(np.sqrt(np.mean(squares) / np.mean(moved**2))))
    assert errors[-1] < 0.25
    assert -0.7 < slope(errors) < -0.3
