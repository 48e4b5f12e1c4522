"""Folding: exact where the series ends, the Mehler partial sum elsewhere, and the exact gradient of itself."""

import numpy as np
import pytest

import tpc
from backends.numpy_backend import NumpyBackend
from tests.support.problems import DIM, RANK, assert_gradients, batch, generic_state, make
from tpc.errors import UsageError, UserError
from tpc.gaussian.kernel import kernel
from tpc.limits.fold import fold_store
from tpc.program.expression import parse_nonlinearity
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.models.folding import FoldOptions, least_degree, relative_remainder

MLP = """
def net(x, *, classes=3):
    phi = tpc.nonlin("{phi}")
    h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
    h = tpc.dense(phi(h), name="hidden1") + 0.5 * tpc.bias("hidden1")
    return tpc.readout(phi(h), classes, name="readout") + 0.5 * tpc.bias("readout")
"""
RESIDUAL = """
def net(x, *, classes=3):
    phi = tpc.nonlin("{phi}")
    h = tpc.dense(x, name="embed")
    h = h + 0.5 * tpc.dense(phi(tpc.rms_norm(h, 0.1)), name="block1")
    return tpc.readout(phi(h), classes, name="readout")
"""
SHALLOW = """
def net(x, *, classes=3):
    return tpc.readout(tpc.nonlin("{phi}")(tpc.dense(x, name="embed")), classes, name="readout")
"""
EVERYTHING = FoldOptions(degree=2, window=0, coefficients="taylor")


@pytest.fixture
def program(tmp_path):
    def load(text, phi="x"):
        path = tmp_path / "net.py"
        path.write_text('"""A network."""\nimport tpc\n' + text.format(phi=phi))
        return tpc.load(path)

    return load


def folded(program, fold, **options):
    """A folded model with the generic state of an exact one."""
    model = tpc.compile(program).build(DIM, RANK, mode="folded", fold=fold, **{"dtype": "float64", **options})
    model.load_state(generic_state(make(program)))
    return model


@pytest.mark.parametrize("text", [MLP, RESIDUAL])
@pytest.mark.parametrize("halves", [False, True])
def test_a_series_that_ends_is_exact(program, monkeypatch, text, halves):
    monkeypatch.setattr(NumpyBackend, "HALVES", halves)
    net = program(text, "x**2/2 + x")
    exact, model = make(net), folded(net, EVERYTHING)
    for k in range(6):
        options = {"lr": 0.02, "weight_decay": 0.5, "clip": 0.3, "lr_mult": {"embed": 0.5}}
        x, y = batch(k)
        wanted, found = (m.step(x, y, **options) for m in (exact, model))
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-9)
        for name, norm in wanted["grad_norm"].items():
            assert found["grad_norm"][name] == pytest.approx(norm, rel=1e-7, abs=1e-12)
    assert all(len(model._state[s]) == 0 for s in model._stores)
    assert model.atoms == exact.atoms
    np.testing.assert_allclose(model.predict(x), exact.predict(x), rtol=1e-8, atol=1e-10)


def test_momentum_folds_atoms_once_they_have_settled(program):
    net = program(MLP, "x**2/2 + x")
    exact, model = make(net), folded(net, EVERYTHING)
    for k in range(140):
        x, y = batch(k, count=1)
        for m in (exact, model):
            m.step(x, y, lr=0.002, momentum=0.5, weight_decay=0.1)
    count = len(model._state["hidden1"])
    assert 40 < count < 70  # 0.5^t is below rounding after 53 steps and a few more
    np.testing.assert_allclose(model.predict(x), exact.predict(x), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("phi", "degree"),
    [("relu(x)", 2), ("relu(x)", 4), ("erf(x)", 3), ("gelu(x)", 2), ("abs(x)", 2), ("leaky_relu(x, 0.2)", 2),
     ("sin(x)", 3), ("tanh(x)", 1), ("exp(x/2)", 3), ("x**3", 3)],
)  # fmt: skip
def test_the_forward_pass_is_the_mehler_partial_sum(program, phi, degree):
    model = folded(program(SHALLOW, phi), FoldOptions(degree=degree, window=0, coefficients="taylor"))
    exact = make(program(SHALLOW, phi))
    state, (x, _) = exact.state(), batch()
    atoms = exact.limit.graph().stores[0].function  # φ without its numerical factor
    series = kernel(parse_nonlinearity(phi), atoms).series(degree)
    g, b = x @ state["embed.A"], state["readout.B"]
    values = [[series(u @ u, v @ v, u @ v) for v in b] for u in g]
    tolerance = 1e-7 if phi == "tanh(x)" else 1e-10
    np.testing.assert_allclose(model.predict(x), np.array(values) @ state["readout.A"], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("text", [MLP, RESIDUAL])
@pytest.mark.parametrize(
    ("phi", "degree"), [("relu(x)", 2), ("erf(x)", 3), ("gelu(x)", 2), ("abs(x)", 2), ("tanh(x)", 1), ("sin(x)", 3)]
)
def test_the_backward_pass_is_the_gradient_of_the_folded_forward_pass(program, text, phi, degree):
    model = folded(program(text, phi), FoldOptions(degree=degree, window=0, coefficients="taylor"))
    for moments in (v for k, v in model._state.items() if k.endswith(".folded")):
        moments.weights = np.linspace(0.7, 1.4, len(moments.weights))
    assert_gradients(model, [("embed", place) for place in ((0, 0), (1, 2), (3, 3))], rel=2e-5, abs=2e-8)


def test_a_window_keeps_the_newest_atoms_exact(program):
    net = program(MLP, "relu(x)")
    exact, model = make(net), folded(net, FoldOptions(window=4000))
    for k in range(3):
        x, y = batch(k)
        assert exact.step(x, y, lr=0.3)["loss"] == pytest.approx(model.step(x, y, lr=0.3)["loss"], rel=1e-12)
    np.testing.assert_allclose(model.predict(x), exact.predict(x), rtol=1e-12)


@pytest.mark.parametrize(("phi", "degree"), [("erf(x)", 3), ("abs(x)", 2), ("exp(x/2)", 3), ("gelu(x)", 2)])
def test_fitted_weights_come_closer_to_the_exact_model(program, phi, degree):
    net = program(SHALLOW, phi)
    exact, x = make(net), batch()[0]
    rng = np.random.default_rng(3)
    b = rng.standard_normal((300, RANK))
    state = exact.state() | {"readout.B": b / np.linalg.norm(b, axis=1, keepdims=True)}
    state["readout.A"] = rng.standard_normal((300, 3))
    exact.load_state(state)
    errors = {}
    for coefficients in ("taylor", "fitted"):
        model = folded(net, FoldOptions(degree=degree, window=64, coefficients=coefficients))
        model.load_state(state)
        errors[coefficients] = np.abs(model.predict(x) - exact.predict(x)).max()
        assert model.remainders["readout"] < 0.05
    assert errors["fitted"] < errors["taylor"]


@pytest.mark.parametrize("coefficients", ["taylor", "fitted"])
def test_a_series_that_ends_has_no_remainder(program, coefficients):
    model = folded(program(MLP, "x**3/3 + x"), FoldOptions(degree=3, window=0, coefficients=coefficients))
    for k in range(5):
        model.step(*batch(k), lr=0.01, clip=0.1)
    assert model.remainders["hidden1"] < 1e-6
    np.testing.assert_allclose(model._state["hidden1.folded"].weights, 1, atol=1e-3)


def test_a_diverged_step_changes_nothing(program):
    model = folded(program(MLP, "gelu(x)"), FoldOptions(degree=2, window=0))
    x, y = batch()
    for _ in range(30):
        before = {name: value.copy() for name, value in model.state().items()}
        try:
            model.step(x, y, lr=300.0)
        except DivergedError as error:
            told = str(error)
            break
    else:
        pytest.fail("the run was meant to diverge")
    assert "the step was not taken" in told
    assert all(np.isfinite(value).all() for value in model.state().values())
    for name, value in model.state().items():
        np.testing.assert_array_equal(value, before[name], err_msg=name)


def test_stores_whose_names_are_alike_stay_apart(tmp_path):
    path = tmp_path / "alike.py"
    path.write_text(
        '"""Two forms of one weight, and a layer of nearly the same name."""\nimport tpc\n'
        "def net(x, *, classes=3):\n"
        "    phi, psi = tpc.nonlin('x**2/20 + x/2'), tpc.nonlin('x**2/30 - x/2')\n"
        "    a = tpc.dense(x, name='embed')\n"
        "    h = tpc.dense(phi(a), name='w', space='s') + tpc.dense(psi(a), name='w', space='s')\n"
        "    h = tpc.dense(psi(h), name='w_2')\n"
        "    return tpc.readout(phi(h), classes, name='readout')\n"
    )
    net = tpc.load(path)
    exact, model = make(net), folded(net, EVERYTHING)
    for k in range(3):
        wanted, found = (m.step(*batch(k), lr=0.01) for m in (exact, model))
        assert found["loss"] == pytest.approx(wanted["loss"], rel=1e-9)
    np.testing.assert_allclose(model.predict(batch(9)[0]), exact.predict(batch(9)[0]), rtol=1e-8, atol=1e-10)


def test_fitted_weights_lower_the_measured_remainder(program):
    net = program(MLP, "relu(x)")
    remainders = {}
    for coefficients in ("taylor", "fitted"):
        model = folded(net, FoldOptions(degree=2, window=8, coefficients=coefficients))
        for k in range(20):
            model.step(*batch(k), lr=0.1)
        remainders[coefficients] = model.remainders
        weights = model._state["hidden1.folded"].weights
        assert (weights == 1).all() if coefficients == "taylor" else (weights >= 0).all() and (weights != 1).any()
    for name, value in remainders["fitted"].items():
        assert 0 < value < remainders["taylor"][name]


@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_saving_keeps_everything(program, tmp_path, momentum):
    model = folded(program(MLP, "relu(x)"), FoldOptions(window=5), dtype="float32")
    options = {"lr": 0.1, "momentum": momentum, "weight_decay": 0.1, "clip": 0.5}
    for k in range(40):
        model.step(*batch(k), **options)
    model.save(tmp_path / "model.npz")
    again = tpc.Model.load(tmp_path / "model.npz")
    assert again.fold == FoldOptions(degree=2, window=5)
    for k in range(40, 60):
        assert model.step(*batch(k), **options) == again.step(*batch(k), **options)
    for name, value in model.state().items():
        np.testing.assert_array_equal(again.state()[name], value, err_msg=name)
    assert again.remainders == model.remainders


def test_states_go_back_and_forth(program):
    net = program(MLP, "relu(x)")
    model = folded(net, FoldOptions(window=5))
    for k in range(10):
        model.step(*batch(k), lr=0.1, weight_decay=0.1)
    state = model.state()
    assert {"hidden1.M0", "hidden1.M1", "hidden1.M2", "hidden1.w", "readout.M2"} <= state.keys()
    other = folded(net, FoldOptions(window=5))
    other.load_state(state)
    np.testing.assert_allclose(other.predict(batch(3)[0]), model.predict(batch(3)[0]), rtol=1e-12)
    with pytest.raises(UsageError, match=r"missing: hidden1\.M1"):
        other.load_state({name: value for name, value in state.items() if name != "hidden1.M1"})
    with pytest.raises(UsageError, match=r"hidden1\.M2"):
        other.load_state({**state, "hidden1.M2": state["hidden1.M2"][:, 1:]})


def test_degrees_follow_the_tolerance(program):
    relu, erf = (tpc.compile(program(MLP, phi)).graph() for phi in ("relu(x)", "erf(x)"))
    assert [least_degree(relu, e) for e in (0.5, 0.1, 0.02)] == [1, 2, 4]
    assert [least_degree(erf, e) for e in (0.1, 0.05)] == [1, 3]
    f = fold_store(relu.stores[0], 2)
    assert [m.order for m in f.moments] == [0, 1, 2]
    assert relative_remainder(f) == pytest.approx(1 - (1 / np.pi + 0.5 + 0.5 / np.pi), rel=1e-9)
    assert [m.order for m in fold_store(erf.stores[0], 4).moments] == [1, 3]
    with pytest.raises(UserError, match="no degree up to 12"):
        least_degree(tpc.compile(program(MLP, "step(x)")).graph(), 0.01)


def test_what_cannot_fold_is_told(program):
    with pytest.raises(UserError, match="nothing of it but a constant; give a degree from 2"):
        folded(program(SHALLOW, "abs(x)"), FoldOptions(degree=1))


@pytest.mark.parametrize(
    ("options", "words"),
    [({"degree": 0}, "degree"), ({"degree": 1.5}, "degree"), ({"degree": 13}, "from 1 to 12"),
     ({"window": -1}, "window"), ({"window": True}, "window"),
     ({"coefficients": "best"}, "fitted, taylor"), ({"tolerance": 0}, "tolerance")],
)  # fmt: skip
def test_wrong_options_are_told(options, words):
    with pytest.raises(UsageError, match=words):
        FoldOptions(**options)


def test_exact_models_take_no_fold_options(program):
    with pytest.raises(UsageError, match="mode 'folded'"):
        make(program(MLP, "relu(x)"), fold=FoldOptions())
