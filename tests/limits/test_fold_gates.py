"""Folding atoms that are functions of several latents: gates, polynomials, parameters."""

from itertools import product
from math import factorial, prod

import numpy as np
import pytest
from numpy.polynomial import hermite_e
from scipy import special

import tpc
from backends.numpy_backend import NumpyBackend
from tests.support.problems import DIM, RANK, assert_gradients, batch, generic_state, make
from tpc.errors import ProgramError
from tpc.limits.fold import fold, fold_store
from tpc.runtime.models.folding import FoldOptions, least_degree, relative_remainder

SHALLOW = "return tpc.readout({gate}, classes, name='readout')"
DEEP = """h = tpc.dense({gate}, name='mid')
    return tpc.readout({phi}, classes, name='readout')"""
STREAM = """h = a + tpc.dense({gate}, name='mid', space='s')
    return tpc.readout({phi} + h * b / 5, classes, name='readout')"""
LOOP = """h = a
    for _ in range(2):
        h = h + tpc.dense({gate} + h**2 / 8, name='loop', space='s')
    return tpc.readout(h * c - 1, classes, name='readout')"""
LISTING = """program net
axis sample
axis feature
axis class = 3
x : scalar[sample, feature] = data
embed : G embed[feature] = weight(input, std 1)
h1 : G embed[sample] = lincomb(sum[feature] x * embed)
s2 : scalar[sample] = moment(u0**2; h1)
x1 : X embed[sample] = nonlin({fn}; h1; s2)
readout : X embed[class] = weight(readout, std 1)
s1 : scalar[sample, class] = moment(u0*u1; x1, readout)
{more}
"""


@pytest.fixture
def program(tmp_path):
    def load(text, **names):
        path = tmp_path / "net.py"
        path.write_text(
            '"""A gate."""\nimport tpc\n\n\ndef net(x, *, classes=3):\n'
            "    a, b, c = (tpc.dense(x, name=name, space='s') for name in 'abc')\n    " + text.format(**names) + "\n"
        )
        return tpc.load(path)

    return load


def folded(program, degree, coefficients="taylor", rank=RANK, **options):
    """A folded model without a window, with the generic state of an exact one."""
    fold = FoldOptions(degree=degree, window=0, coefficients=coefficients)
    model = tpc.compile(program).build(DIM, rank, mode="folded", fold=fold, **{"dtype": "float64", **options})
    model.load_state(generic_state(make(program, rank=rank)))
    return model


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize("coefficients", ["taylor", "fitted"])
@pytest.mark.parametrize(
    ("text", "gate", "degree"),
    [(SHALLOW, "a * b", 2), (SHALLOW, "a**2 * b / 3 + a * b", 3), (SHALLOW, "a * b * c / 2 + b", 3),
     (DEEP, "a * b + a / 2", 2), (DEEP, "a * b**2 / 4 + c**3 / 5", 3), (STREAM, "a * b", 2),
     (DEEP, "a * b / 2 + a**2 - 1", 2), (LOOP, "h * b / 4", 2)],
)  # fmt: skip
def test_polynomial_gates_fold_exactly(program, monkeypatch, text, gate, degree, coefficients, halves):
    monkeypatch.setattr(NumpyBackend, "HALVES", halves)
    net = program(text, gate=gate, phi="h**2 / 4 + h")
    exact, model = make(net), folded(net, degree, coefficients)
    for k in range(6):
        options = {"lr": 0.01, "weight_decay": 0.5, "clip": 0.3, "lr_mult": {"a": 0.5}}
        wanted, found = (m.step(*batch(k), **options) for m in (exact, model))
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-9)
        for name, norm in wanted["grad_norm"].items():
            assert found["grad_norm"][name] == pytest.approx(norm, rel=1e-7, abs=1e-11)
    assert all(len(model._state[s]) == 0 for s in model._stores)
    assert model.atoms == exact.atoms
    assert all(value < 1e-6 for value in model.remainders.values())
    np.testing.assert_allclose(model.predict(batch(9)[0]), exact.predict(batch(9)[0]), rtol=1e-8, atol=1e-9)


def test_momentum(program):
    net = program(SHALLOW, gate="a * b + c")
    exact, model = make(net), folded(net, 2)
    for k in range(120):
        for m in (exact, model):
            m.step(*batch(k, count=1), lr=0.002, momentum=0.5, weight_decay=0.1)
    assert 40 < len(model._state["readout"]) < 70
    np.testing.assert_allclose(model.predict(batch()[0]), exact.predict(batch()[0]), rtol=1e-9, atol=1e-12)


def hermite_sum(fn, atoms, readers, degree, nodes=30):
    """Σ_{|n| ≤ degree} E[x He_n(z)] E[y He_n(z)] / n! for atoms x and readers y, functions of lists of latents."""
    rank = atoms[0].shape[1]
    x, w = hermite_e.hermegauss(nodes)
    z = np.stack([g.ravel() for g in np.meshgrid(*[x] * rank, indexing="ij")])
    weight = prod(g.ravel() for g in np.meshgrid(*[w / np.sqrt(2 * np.pi)] * rank, indexing="ij"))
    values = [fn(*(g @ z for g in latents)) * weight for latents in (atoms, readers)]
    total = 0
    for n in (n for n in product(range(degree + 1), repeat=rank) if sum(n) <= degree):
        basis = prod(hermite_e.hermeval(zi, np.eye(degree + 1)[k]) for zi, k in zip(z, n))
        left, right = (v @ basis for v in values)
        total = total + np.outer(right, left) / prod(map(factorial, n))
    return total


@pytest.mark.parametrize("degree", [2, 3, 4])
@pytest.mark.parametrize(
    ("gate", "fn"),
    [("tpc.erf(a) * b", lambda u, v: special.erf(u) * v),
     ("tpc.sigmoid(a) * b", lambda u, v: special.expit(u) * v),
     ("tpc.nonlin('exp(-x**2/4)')(a) * b**2", lambda u, v: np.exp(-(u**2) / 4) * v**2),
     ("a**2 * tpc.sin(b)", lambda u, v: u**2 * np.sin(v))],
)  # fmt: skip
def test_the_forward_pass_is_the_partial_hermite_sum(program, gate, fn, degree):
    model, x = folded(program(SHALLOW, gate=gate), degree, rank=3), 0.3 * batch()[0]  # few nodes for flat functions
    state = make(model.limit.program, rank=3).state()
    values = hermite_sum(fn, [state["readout.B"], state["readout.B2"]], [x @ state["a.A"], x @ state["b.A"]], degree)
    wanted = values @ state["readout.A"]
    np.testing.assert_allclose(model.predict(x), wanted, rtol=1e-6, atol=1e-7)


def test_kinked_gates_converge_to_the_exact_model(program):
    net = program(SHALLOW, gate="tpc.relu(a) * b")
    exact, x = make(net), batch()[0]
    wanted = exact.predict(x)
    errors = [np.abs(folded(net, degree).predict(x) - wanted).max() / np.abs(wanted).max() for degree in (1, 3, 5, 7)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-3


@pytest.mark.parametrize("halves", [False, True])
@pytest.mark.parametrize(
    ("text", "gate", "degree"),
    [(SHALLOW, "tpc.relu(a) * b", 2), (DEEP, "tpc.relu(a) * b", 3), (STREAM, "tpc.relu(a) * b", 2),
     (SHALLOW, "tpc.sigmoid(a) * b", 2), (DEEP, "a**2 * tpc.erf(b)", 3), (STREAM, "tpc.erf(a) * b", 4),
     (SHALLOW, "tpc.erf(a) * b * c", 3)],
)  # fmt: skip
def test_the_backward_pass_is_the_gradient_of_the_forward_pass(program, monkeypatch, text, gate, degree, halves):
    monkeypatch.setattr(NumpyBackend, "HALVES", halves)
    model = folded(program(text, gate=gate, phi="tpc.erf(h)"), degree)
    for moments in (v for k, v in model._state.items() if k.endswith(".folded")):
        moments.weights = np.linspace(0.7, 1.4, len(moments.weights))
    assert_gradients(model, [("a", (0, 0)), ("a", (3, 3)), ("b", (1, 2))], rel=2e-5, abs=2e-8)


def test_atoms_of_one_latent_read_by_two(program):
    text = """h = tpc.dense({phi}, name='mid') + tpc.dense({gate}, name='mid')
    return tpc.readout(h**2 / 4 + h, classes, name='readout')"""
    net = program(text, gate="a * b", phi="c**2 / 2 + c")
    exact, model = make(net), folded(net, 2)
    assert {len(f.store.columns) for f in model.folds.values()} == {1, 2}
    for k in range(4):
        wanted, found = (m.step(*batch(k), lr=0.01) for m in (exact, model))
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-9)
    smooth = program(text, gate="tpc.erf(a) * b", phi="tpc.erf(c)")
    wide, x = make(smooth).predict(batch()[0]), batch()[0]
    np.testing.assert_allclose(folded(smooth, 9).predict(x), wide, rtol=0, atol=2e-2 * np.abs(wide).max())


def test_parameters_of_atoms():
    more = "output logits = s1"
    net = tpc.parse(LISTING.format(fn="t0*u0**2/2 + u0", more=more))
    exact, model = make(net), folded(net, 2, "fitted")
    assert all(f.store.thetas for f in model.folds.values())
    for k in range(5):
        wanted, found = (m.step(*batch(k), lr=0.02, clip=0.3) for m in (exact, model))
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-9)
    one = tpc.compile(tpc.parse(LISTING.format(fn="t0*erf(u0)", more=more))).graph().stores[0]
    plain = tpc.compile(tpc.parse(LISTING.format(fn="erf(u0)", more=more).replace("; s2)", ")"))).graph().stores[0]
    assert relative_remainder(fold_store(one, 3)) == pytest.approx(relative_remainder(fold_store(plain, 3)), rel=1e-9)


def test_two_sums_in_one_product_are_told():
    more = (
        "s3 : scalar[sample, class] = moment(u0*u1**2; x1, readout)\ns4 : scalar[sample, class] = add(s1, s3)\n"
        "output logits = s4"
    )
    net = tpc.parse(LISTING.format(fn="t0*u0**2", more=more))
    with pytest.raises(ProgramError, match=r"two sums over stored atoms \(of readout\)"):
        fold(net, 2)


def test_fitted_weights_lower_the_measured_remainder(program):
    remainders = {}
    for coefficients in ("taylor", "fitted"):
        model = folded(program(DEEP, gate="tpc.relu(a) * b", phi="tpc.relu(h)"), 2, coefficients)
        for k in range(20):
            model.step(*batch(k), lr=0.1)
        remainders[coefficients] = model.remainders
    for name, value in remainders["fitted"].items():
        assert 0 < value < remainders["taylor"][name]


def test_saving_keeps_everything(program, tmp_path):
    model = folded(program(DEEP, gate="tpc.erf(a) * b", phi="tpc.relu(h)"), 2, "fitted", dtype="float32")
    options = {"lr": 0.1, "momentum": 0.5, "weight_decay": 0.1, "clip": 0.5}
    for k in range(20):
        model.step(*batch(k), **options)
    model.save(tmp_path / "model.npz")
    again = tpc.Model.load(tmp_path / "model.npz")
    for k in range(20, 40):
        assert model.step(*batch(k), **options) == again.step(*batch(k), **options)
    for name, value in model.state().items():
        np.testing.assert_array_equal(again.state()[name], value, err_msg=name)


def test_native_agrees(program):
    net = program(DEEP, gate="tpc.erf(a) * b", phi="tpc.relu(h)")
    losses, logits = [], []
    for options in ({"dtype": "float64"}, {"dtype": "float32", "backend": "native"}):
        model = folded(net, 3, "fitted", **options)
        losses.append([model.step(*batch(k), lr=0.05, weight_decay=0.1)["loss"] for k in range(12)])
        logits.append(model.predict(batch(20)[0]))
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    np.testing.assert_allclose(logits[1], logits[0], rtol=0, atol=1e-3 * np.abs(logits[0]).max())


def test_degrees_follow_the_tolerance(program):
    gate = tpc.compile(program(SHALLOW, gate="tpc.relu(a) * b")).graph()
    assert [least_degree(gate, e) for e in (0.7, 0.2, 0.05)] == [1, 2, 3]
    # E (relu(u) v)² = 1/2; at independent latents relu(u) v has the Hermite coefficients of relu, one degree up
    kept = 1 / (2 * np.pi) + 1 / 4 + 1 / (4 * np.pi)
    assert relative_remainder(fold_store(gate.stores[0], 3)) == pytest.approx(1 - 2 * kept, rel=1e-9)
    assert [m.order for m in fold_store(gate.stores[0], 3).moments] == [0, 1, 2, 3]
    odd = tpc.compile(program(SHALLOW, gate="tpc.tanh(a) * b")).graph().stores[0]
    assert [m.order for m in fold_store(odd, 5).moments] == [0, 2, 4]
