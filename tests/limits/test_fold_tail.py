"""The tail of a folded sum: what it is at its points, the gradient of what is read from it, and its limit."""

import numpy as np
import pytest
from numpy.polynomial import hermite_e

import tpc
from tests.support.problems import DIM, RANK, assert_gradients, batch, generic_state, make
from tpc.errors import UsageError
from tpc.limits.fold import fold_store
from tpc.limits.hermite import covariance_symbol, wick
from tpc.program.functions import argument
from tpc.runtime.models.folding import FoldOptions

MLP = """
    phi = tpc.nonlin("{phi}")
    h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
    h = tpc.dense(phi(h), name="hidden1") + 0.5 * tpc.bias("hidden1")
    return tpc.readout(phi(h), classes, name="readout") + 0.5 * tpc.bias("readout")
"""
RESIDUAL = """
    phi = tpc.nonlin("{phi}")
    h = tpc.dense(x, name="embed")
    h = h + 0.5 * tpc.dense(phi(tpc.rms_norm(h, 0.1)), name="block1")
    return tpc.readout(phi(h), classes, name="readout")
"""
SHALLOW = """
    return tpc.readout(tpc.nonlin("{phi}")(tpc.dense(x, name="embed")), classes, name="readout")
"""
GATE = """
    a, b = (tpc.dense(x, name=name, space="s") for name in "ab")
    h = tpc.dense({phi}, name="hidden")
    return tpc.readout(tpc.erf(h), classes, name="readout")
"""


@pytest.fixture
def program(tmp_path):
    def load(text, phi):
        path = tmp_path / "net.py"
        path.write_text('"""A network."""\nimport tpc\n\n\ndef net(x, *, classes=3):' + text.format(phi=phi))
        return tpc.load(path)

    return load


def folded(program, degree, points, window=0, **options):
    fold = FoldOptions(degree=degree, window=window, points=points, coefficients="taylor")
    model = tpc.compile(program).build(DIM, RANK, mode="folded", fold=fold, **{"dtype": "float64", **options})
    model.load_state(generic_state(make(program)))
    return model


@pytest.mark.parametrize("index", [(0,), (1,), (2,), (5,), (1, 1), (2, 1), (1, 1, 1), (2, 2)])
def test_wick_powers_are_orthogonal_to_lower_degrees(index):
    # by sampling all moments exactly: Gauss-Hermite nodes of correlated variables
    count = len(index)
    root = np.linalg.cholesky(0.3 * np.ones((count, count)) + np.diag([0.5, 1.1, 0.7][:count]))
    c = root @ root.T
    nodes, w = hermite_e.hermegauss(8)
    z = np.stack([g.ravel() for g in np.meshgrid(*[nodes] * count, indexing="ij")])
    weight = np.prod([g.ravel() for g in np.meshgrid(*[w / np.sqrt(2 * np.pi)] * count, indexing="ij")], axis=0)
    u = root @ z
    numbers = {covariance_symbol(i, j): c[i, j] for i in range(count) for j in range(count)}
    made = wick(index).xreplace(numbers)
    values = np.array([float(made.subs({argument(i): p[i] for i in range(count)})) for p in u.T])
    lower = [(0,) * count, *(tuple(int(k == i) for k in range(count)) for i in range(count))]
    for other in (o for o in lower if sum(o) < sum(index)):
        product = values * np.prod([u[i] ** k for i, k in enumerate(other)], axis=0)
        assert abs(product @ weight) < 1e-10
    if count == 1:
        expected = c[0, 0] ** (index[0] / 2) * hermite_e.hermeval(u[0] / np.sqrt(c[0, 0]), np.eye(6)[index[0]])
        np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("phi", "fn", "degree"),
    [("relu(x)", lambda u: np.maximum(u, 0), 2), ("sin(x)", np.sin, 1), ("abs(x)", np.abs, 2),
     ("exp(x/2)", lambda u: np.exp(u / 2), 1)],
)  # fmt: skip
def test_forward_is_the_partial_sum_and_the_sampled_rest(program, phi, fn, degree):
    model, plain = folded(program(SHALLOW, phi), degree, 50), folded(program(SHALLOW, phi), degree, 0)
    exact = make(program(SHALLOW, phi))
    state, x = exact.state(), batch()[0]
    z = model.state()["readout.Z"]
    nodes = np.linspace(-12, 12, 200_001)  # the trapezoidal rule, since some of them are kinked
    weights = np.exp(-(nodes**2) / 2) * (nodes[1] - nodes[0]) / np.sqrt(2 * np.pi)

    def beyond(g):
        """fn(⟨z, g⟩) less its Hermite terms, at every point, (points, len(g))."""
        made = []
        for v in g:
            size = np.linalg.norm(v)
            values = fn(size * nodes) * weights
            u = z @ v
            terms = 0
            for n in range(degree + 1):
                he = np.eye(degree + 1)[n]
                number = values @ hermite_e.hermeval(nodes, he)
                terms = terms + number * hermite_e.hermeval(u / size, he) / [1, 1, 2][n]
            made.append(fn(u) - terms)
        return np.array(made).T

    rest = beyond(x @ state["embed.A"]).T @ beyond(state["readout.B"]) @ state["readout.A"] / len(z)
    np.testing.assert_allclose(model.predict(x), plain.predict(x) + rest, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("text", "phi", "degree"),
    [(MLP, "relu(x)", 2), (MLP, "erf(x)", 3), (MLP, "gelu(x)", 2), (MLP, "sin(x)", 1), (RESIDUAL, "relu(x)", 2),
     (RESIDUAL, "abs(x)", 2), (RESIDUAL, "gelu(x)", 1), (MLP, "relu(x)", 1), (GATE, "tpc.erf(a) * b", 2),
     (GATE, "tpc.sin(a) * b", 3), (GATE, "tpc.sigmoid(a) * b", 1)],
)  # fmt: skip
def test_backward_is_the_gradient_of_the_sampled_forward_pass(program, text, phi, degree):
    model = folded(program(text, phi), degree, 7)  # so few that what is sampled is mostly noise
    name = "a" if "a.A" in model._state else "embed"
    assert_gradients(model, [(name, place) for place in ((0, 0), (1, 2), (3, 3))], rel=5e-5, abs=5e-8)


@pytest.mark.parametrize(
    ("text", "phi", "degree"), [(MLP, "relu(x)", 2), (MLP, "gelu(x)", 2), (GATE, "tpc.erf(a) * b", 2)]
)
def test_many_points_train_as_the_exact_model_does(program, text, phi, degree):
    exact = make(program(text, phi))
    plain, model = (folded(program(text, phi), degree, points) for points in (0, 20_000))
    for k in range(6):
        for m in (exact, plain, model):
            m.step(*batch(k), lr=0.1, weight_decay=0.5, clip=1.0)
    x = batch(9)[0]
    wanted = exact.predict(x)
    error, before = (np.abs(m.predict(x) - wanted).max() for m in (model, plain))
    assert error < 0.2 * before
    assert all(0 < model.remainders[name] < 0.3 * plain.remainders[name] for name in plain.remainders)


def test_momentum_and_decay_reach_the_tail(program):
    exact = make(program(MLP, "relu(x)"))
    model = folded(program(MLP, "relu(x)"), 2, 20_000)
    for k in range(100):
        for m in (exact, model):
            m.step(*batch(k, count=1), lr=0.01, momentum=0.5, weight_decay=0.5)
    assert len(model._state["hidden1"]) < 70
    np.testing.assert_allclose(model.predict(batch()[0]), exact.predict(batch()[0]), atol=0.003)


def test_a_series_that_ends_has_no_tail(program):
    net = program(MLP, "x**2/2 + x")
    assert not any(f.tail for f in folded(net, 2, 100).folds.values())
    assert all(f.tail for f in folded(net, 1, 100).folds.values())
    gate = tpc.compile(program(GATE, "a * b")).graph()
    assert [fold_store(s, 2, 100).tail is None for s in gate.stores] == [True, False]


def test_states_and_files_keep_it(program, tmp_path):
    model = folded(program(MLP, "relu(x)"), 2, 30, window=5, dtype="float32")
    options = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, "clip": 0.5}
    for k in range(30):
        model.step(*batch(k), **options)
    model.save(tmp_path / "model.npz")
    again = tpc.Model.load(tmp_path / "model.npz")
    assert again.fold == FoldOptions(degree=2, window=5, points=30, coefficients="taylor")
    for k in range(30, 40):
        assert model.step(*batch(k), **options) == again.step(*batch(k), **options)
    model = folded(program(MLP, "relu(x)"), 2, 30, window=5)
    for k in range(10):
        model.step(*batch(k), lr=0.1, weight_decay=0.1)
    state = model.state()
    assert state["hidden1.Z"].shape == (30, RANK)
    assert state["hidden1.T"].shape == (30, RANK)
    assert state["readout.T"].shape == (30, 3)
    other = folded(program(MLP, "relu(x)"), 2, 30, window=5)
    other.load_state(state)
    np.testing.assert_allclose(other.predict(batch(3)[0]), model.predict(batch(3)[0]), rtol=1e-12)
    with pytest.raises(UsageError, match=r"missing: hidden1\.T"):
        other.load_state({name: value for name, value in state.items() if name != "hidden1.T"})
    with pytest.raises(UsageError, match=r"hidden1\.Z"):
        other.load_state({**state, "hidden1.Z": state["hidden1.Z"][1:]})


def test_options(program):
    assert FoldOptions(points=5).coefficients == "taylor"
    assert FoldOptions().coefficients == "fitted"
    with pytest.raises(UsageError, match="--fold-points"):
        FoldOptions(points=5, coefficients="fitted")
    for wrong in (-1, 1.5, True):
        with pytest.raises(UsageError, match="number of fold points"):
            FoldOptions(points=wrong)
    text = tpc.compile(program(MLP, "relu(x)")).graph(degree=2, points=9)
    assert [f.tail.count for f in text.folds] == [9, 9]
