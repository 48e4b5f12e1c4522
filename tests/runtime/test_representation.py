"""Gram matrices of representations, against the closed form for relu, against finite networks, on every backend."""

from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.decomposition import PCA

import tpc
from tests.support.adapted import network, queried, support
from tests.support.problems import CLASSES, DIM, RANK, make
from tpc.errors import UsageError
from tpc.passes.gram_output import unadapted
from tpc.runtime.models import representation
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.representation import gram, principal_components
from tpc.runtime.networks.finite import FiniteNetwork

BIAS = 1.414214
FULL = FoldOptions(degree=10, window=0, coefficients="taylor")


@pytest.fixture(scope="module")
def program(programs_dir):
    return tpc.load(programs_dir / "maml.py", classes=CLASSES)


@pytest.fixture(scope="module")
def x():
    return np.random.default_rng(11).standard_normal((12, DIM))


def stepped(program, steps=3, **options):
    """A model after some steps, whose atoms are those of support and query samples."""
    model = make(program, **options)
    for k in range(steps):
        model.step(*queried(k), lr=1.0, support=support(k))
    return model


def relu_kernel(a, b):
    """E relu(u) relu(v) of Gaussian u = ⟨a, z⟩, v = ⟨b, z⟩, for rows (N, r) and (M, r)."""
    norms = np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1)
    rho = np.clip(a @ b.T / norms, -1, 1)
    return norms * (np.sqrt(1 - rho**2) + rho * (np.pi - np.arccos(rho))) / (2 * np.pi)


def by_hand(state, x):
    """The Gram matrix of the last layer of programs/maml.py, layer by layer."""
    first = x @ state["embed.A"] + BIAS * state["embed.bias"]
    second = relu_kernel(first, state["hidden1.B"]) @ state["hidden1.A"] + BIAS * state["hidden1.bias"]
    return relu_kernel(second, second)


@pytest.mark.parametrize(
    ("backend", "dtype", "tolerance"),
    [("numpy", "float64", 1e-9), ("numpy", "float32", 1e-4), ("native", "float32", 1e-4)],
)
def test_it_is_the_closed_form_of_the_relu_network(program, x, backend, dtype, tolerance):
    model = stepped(program, backend=backend, dtype=dtype)
    assert model.atoms["hidden1"] > RANK + 2
    wanted = by_hand(model.state(), x)
    np.testing.assert_allclose(gram(model, x), wanted, rtol=0, atol=tolerance * wanted.max())


def test_momentum_and_16_bits_change_nothing_but_the_digits(program, x):
    model = make(program, dtype="float32", storage="bfloat16", backend="native")
    for k in range(3):
        model.step(*queried(k), lr=1.0, momentum=0.5, support=support(k))
    np.testing.assert_allclose(gram(model, x), by_hand(model.state(), x), rtol=0.02)


@pytest.mark.parametrize("backend", ["numpy", "native"])
def test_folded_atoms_count_too(program, x, backend):
    exact = make(program)
    dtype = "float64" if backend == "numpy" else "float32"
    folded = exact.limit.build(DIM, RANK, dtype=dtype, mode="folded", fold=FULL, backend=backend)
    folded.load_state(exact.state())
    assert len(folded.raw_state["hidden1"]) == 0
    found, wanted = gram(folded, x), gram(exact, x)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-3 * wanted.max())


def test_finite_networks_approach_it_like_the_root_of_their_width(program, x):
    model = stepped(program)
    wanted, errors = gram(model, x), []
    for width in (256, 1024, 4096):
        squares = []
        for seed in range(6):
            w = FiniteNetwork(model.limit, model.state(), width, seed).weights
            first = np.maximum(x @ w["embed"] + BIAS * w["embed.bias"], 0)
            second = np.maximum(w["hidden1"].apply(first) + BIAS * w["hidden1.bias"], 0)
            squares.append(((second @ second.T / width - wanted) ** 2).mean())
        errors.append(np.sqrt(np.mean(squares)))
    slope = np.log(errors[-1] / errors[0]) / np.log(4096 / 256)
    assert -0.7 < slope < -0.3
    assert errors[-1] < 0.1 * np.abs(wanted).max()


@pytest.mark.parametrize("mode", ["exact", "folded"])
def test_the_state_of_a_foreign_backend_is_taken_over(program, x, monkeypatch, mode):
    """Only `state()` is asked of a backend that does not work on NumPy's arrays."""
    fold = FoldOptions(window=2) if mode == "folded" else None
    model = stepped(program, mode=mode, fold=fold)
    wanted = gram(model, x)
    state, taken = model.state(), []
    monkeypatch.setattr(model, "backend", SimpleNamespace(NAME="elsewhere"))
    monkeypatch.setattr(model, "state", lambda: taken.append(True) or state)
    monkeypatch.setattr(representation.Model, "raw_state", property(lambda m: _not_of(m, model)))
    np.testing.assert_allclose(gram(model, x), wanted, rtol=1e-9)
    assert taken


def _not_of(asked, model):
    assert asked is not model
    return asked._state


def test_programs_without_adaptation_have_representations_too(programs_dir, x):
    for name in ("mlp", "resmlp"):
        model = make(tpc.load(programs_dir / f"{name}.py", classes=CLASSES))
        found = gram(model, x)
        np.testing.assert_allclose(found, found.T, rtol=1e-9)
        assert np.linalg.eigvalsh(found).min() > -1e-9 * found.max()
    for phi, diagonal in (("sign", 1.0), ("cos", None)):
        program = network(("h = tpc.dense(x, name='embed')", f"f = tpc.readout(tpc.{phi}(h), 3)"))
        found = np.diag(gram(make(program), x))
        variances = (x @ make(program).state()["embed.A"]) ** 2 @ np.ones(RANK)
        wanted = diagonal * np.ones(12) if diagonal else (1 + np.exp(-2 * variances)) / 2
        np.testing.assert_allclose(found, wanted, rtol=1e-7)  # arccos is steep where the sign's kernel ends


def test_what_adapts_is_no_part_of_the_representation():
    """With the second layer adapted, the last function of the sample alone is that of the first."""
    lines = (
        "h = tpc.dense(x, name='embed')",
        "h = tpc.dense(tpc.tanh(h), name='hidden')",
        "f = tpc.readout(tpc.erf(h), 3)",
    )
    x = np.random.default_rng(2).standard_normal((4, DIM))
    plain = make(network((lines[0], "f = tpc.readout(tpc.tanh(h), 3)")))
    adapted = make(network(lines, "layers='hidden'"))
    plain.load_state({**plain.state(), "embed.A": adapted.state()["embed.A"]})
    np.testing.assert_allclose(gram(adapted, x), gram(plain, x), rtol=1e-9)


def test_a_linear_network_has_none():
    linear = make(network(("f = tpc.readout(tpc.dense(x, name='embed'), 3)",)))
    with pytest.raises(UsageError, match="no nonlinearity, so its representation is its input"):
        gram(linear, np.zeros((2, DIM)))


def test_the_network_without_its_adaptation_has_the_same_representation(program, x):
    adapted = make(program)
    plain = tpc.compile(unadapted(program)).build(DIM, RANK, dtype="float64")
    known = adapted.state()
    plain.load_state({name: known.get(name, value) for name, value in plain.state().items()})
    np.testing.assert_allclose(gram(plain, x), gram(adapted, x), rtol=1e-9)
    assert plain.predict(x).shape == (12, CLASSES)


def test_principal_components_are_those_of_the_features():
    features = np.random.default_rng(3).standard_normal((30, 6)) @ np.diag([5, 3, 2, 1, 1, 0.5])
    points, shares = principal_components(features @ features.T, 3)
    pca = PCA(3, svd_solver="full")
    wanted = pca.fit_transform(features)
    np.testing.assert_allclose(shares, pca.explained_variance_ratio_, rtol=1e-9)
    signs = np.sign((points * wanted).sum(axis=0))
    np.testing.assert_allclose(points * signs, wanted, atol=1e-9)


def test_components_of_samples_that_are_all_the_same():
    points, shares = principal_components(np.ones((4, 4)))
    assert np.allclose(points, 0)
    assert np.allclose(shares, 0)
