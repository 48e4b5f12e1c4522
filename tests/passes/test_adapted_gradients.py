"""Outer gradients of adapted networks: second order against central differences of the loss, first order against the
gradients of plain networks that learned the support.

A weight that is stored as atoms is changed along its gradient, where the slope of the loss is the gradient's squared
norm, and in the coefficients of the atoms it has: W ↦ W + (1/n) Σ_m dA_m X_mᵀ, where it is Σ_mi ⟨dA_m, δᵢ⟩ K(X_m, xᵢ)
with the appended rows (-η δᵢ, xᵢ).
"""

from dataclasses import replace

import numpy as np
import pytest

import tpc
from tests.support.adapted import learned, make_adapted, mlp, network, queried, restarted, support
from tests.support.interpreter import kernel_value
from tests.support.problems import DIM, RANK, make
from tpc.limits.store import Accumulate, Append
from tpc.program.functions import X, argument

EPS = 2e-4


def slope(model, state, change, asked):
    """∂ loss / ∂ε at state + ε·change, to fourth order in ε."""
    x, y, s, loss = asked
    found = {}
    for k in (-2, -1, 1, 2):
        model.load_state({**state, **change(k * EPS)})
        found[k] = model.step(x, y, lr=0.0, support=s, loss=loss)["loss"]
    model.load_state(state)
    return (8 * (found[1] - found[-1]) - (found[2] - found[-2])) / (12 * EPS)


def products(a, rows_a, b, rows_b):
    """K(X_m, X_i) of the atoms of two stores: the first a φ(⟨z,g⟩), the other that or ψ(⟨z,g⟩)⟨z,g'⟩."""
    phi = a.fn.xreplace({argument(0): X})
    left, right = rows_a[0], rows_b[0]
    p, q = (left**2).sum(1)[:, None], (right**2).sum(1)
    if len(rows_b) == 1:
        return kernel_value(phi, b.fn.xreplace({argument(0): X}), p, q, left @ right.T)
    psi = (b.fn / argument(1)).xreplace({argument(0): X})
    assert not psi.has(argument(1))
    # Stein: E φ(u) ψ(v) v' = Cov(u, v') E φ'ψ + Cov(v, v') E φψ'
    one = kernel_value(phi.diff(X), psi, p, q, left @ right.T)
    other = kernel_value(phi, psi.diff(X), p, q, left @ right.T)
    return (left @ rows_b[1].T) * one + (right * rows_b[1]).sum(1) * other


def check(model, loss="cross_entropy", tolerance=1e-6, given=None):
    (x, y), s = given or (queried(), support())
    asked = (x, y, s, loss)
    state = model.state()
    norms = model.step(x, y, lr=1.0, support=s, loss=loss, clip=1e30)["grad_norm"]
    after = model.state()
    rng = np.random.default_rng(0)
    checked = set()
    for weight, updates in model.limit.graph(loss).updates:
        if isinstance(updates[0], Accumulate):
            name = updates[0].state.name
            gradient, direction = state[name] - after[name], rng.standard_normal(state[name].shape)
            cases = [(lambda eps, n=name, d=direction: {n: state[n] + eps * d}, float((gradient * direction).sum()))]
        else:
            stores = list({u.store.name: u.store for u in updates if isinstance(u, Append)}.values())
            columns = [c.name for t in stores for c in (t.coefficients, *t.columns, *t.thetas)]
            rows = {n: after[n][len(state[n]) :] for n in columns}
            assert sum(len(rows[t.coefficients.name]) for t in stores) > 0

            own = {t.coefficients.name for t in stores}

            def along(eps, rows=rows, own=own):
                return {n: np.concatenate([state[n], -eps * v if n in own else v]) for n, v in rows.items()}

            first = stores[0]
            direction = rng.standard_normal(state[first.coefficients.name].shape)
            atoms = [state[c.name] for c in first.columns]
            expected = 0.0
            for t in stores:
                k = products(first, atoms, t, [rows[c.name] for c in t.columns])
                expected -= float(np.sum((direction @ rows[t.coefficients.name].T) * k))
            name = first.coefficients.name
            cases = [
                (along, norms[weight] ** 2),
                (lambda eps, n=name, d=direction: {n: state[n] + eps * d}, expected),
            ]
        for change, expected in cases:
            assert slope(model, state, change, asked) == pytest.approx(expected, rel=tolerance, abs=1e-9), weight
            checked.add(weight)
    assert checked == set(model.weights)


READOUT = "layers=['readout', 'readout.bias']"
SECOND = {
    "readout, one step": ("tpc.relu", "layers='readout', step_size=0.7", "cross_entropy"),
    "readout, three steps": ("tpc.relu", f"{READOUT}, steps=3, step_size=0.7", "cross_entropy"),
    "readout from zero": ("tpc.relu", "layers='readout', zero='readout', step_size=0.7", "cross_entropy"),
    "readout from zero, three steps": ("tpc.relu", f"{READOUT}, zero='readout', steps=3, step_size=1", "cross_entropy"),
    "readout, mean squares": ("tpc.relu", f"{READOUT}, steps=3, step_size=0.7, loss='mse'", "mse"),
    "readout, two losses": ("tpc.relu", f"{READOUT}, steps=2, step_size=0.7, loss='mse'", "cross_entropy"),
    "all": ("tpc.gelu", "layers='all', step_size=0.7", "cross_entropy"),
    "all, mean squares": ("tpc.sin", "layers='all', step_size=0.7", "mse"),
    "all, three steps": ("tpc.erf", "layers='all', steps=3, step_size=0.7", "cross_entropy"),
    "all from zero": ("tpc.erf", "layers='all', zero='readout', steps=2, step_size=0.7, loss='mse'", "mse"),
    "all, with kinks": ("tpc.relu", "layers='all', step_size=0.7", "cross_entropy"),
    "all, three steps, with kinks": ("tpc.leaky_relu", "layers='all', steps=3, step_size=0.7", "cross_entropy"),
    "a hidden layer": ("tpc.sin", "layers='hidden', steps=2, step_size=0.7", "cross_entropy"),
}


@pytest.mark.parametrize("name", SECOND)
def test_second_order_is_the_slope_of_the_loss(name):
    phi, arguments, loss = SECOND[name]
    check(make(network(mlp(phi), arguments)), loss)


def test_second_order_where_queries_are_in_their_own_support():
    """Latents that meet atoms they made themselves, where V[φ'',φ''] of relu is infinite and the gradient is not."""
    s, (_, y) = support(), queried()
    own = np.array([np.flatnonzero(s.tasks == task)[0] for task in s.queries])
    x = s.x.copy()
    x[5] = x[0]  # twice in one support
    model = make(network(mlp("tpc.relu"), "layers='all', steps=2, step_size=0.7"))
    assert model.limit.warnings == ()
    check(model, given=((x[own], y), replace(s, x=x)))


def test_second_order_with_the_papers_readout():
    """The paper's initial state, with readout coefficients N(0, 25)/M."""
    program = network(mlp("tpc.relu"), f"{READOUT}, steps=3, step_size=0.7")
    model = tpc.compile(program).build(DIM, RANK, dtype="float64", init="paper", seed=4)
    state = model.state()
    state["readout.A"] = 5 * state["readout.A"]
    model.load_state(state)
    check(model)


SHARED = (
    "h = tpc.dense(x, 'a')",
    "h = h + tpc.dense(tpc.erf(tpc.rms_norm(h)), 'w', space='a')",
    "h = h + 0.5 * tpc.dense(tpc.erf(tpc.rms_norm(h)), 'w', space='a') + tpc.bias('w')",
    "f = tpc.readout(tpc.erf(h), 3)",
)
GATED = (
    "h = tpc.dense(x, 'a') + tpc.bias('a')",
    "q = tpc.readout(tpc.erf(h), 4, name='q')",
    "g = tpc.dense(tpc.erf(h) * q, 'b') + tpc.bias('b')",
    "f = tpc.total(tpc.readout(tpc.erf(g), 3), 'q_class')",
)


def test_networks_with_shared_weights_norms_and_class_axes():
    check(make(network(SHARED, "layers='all', step_size=0.3")))
    check(make(network(GATED, "layers=['q', 'readout'], steps=2, step_size=0.3")))


def test_first_order_is_not_second_order():
    models = [make(network(mlp("tpc.erf"), f"layers='all', step_size=0.7, order={order}")) for order in (1, 2)]
    first = make_adapted(models[0].limit.program, models[1])
    asked = (*queried(), support(), "cross_entropy")
    moved = []
    for m in (first, models[1]):
        before = m.state()["embed.A"]
        m.step(*asked[:2], lr=1.0, support=asked[2])
        moved.append(m.state()["embed.A"] - before)
    assert np.abs(moved[0] - moved[1]).max() > 0.05 * np.abs(moved[1]).max()


FIRST = {
    "readout": ("tpc.relu", "layers='readout'", ["readout"], 1, "cross_entropy"),
    "readout, three steps": ("tpc.relu", f"{READOUT}, steps=3", ["readout", "readout.bias"], 3, "cross_entropy"),
    "all": ("tpc.relu", "layers='all'", "all", 1, "cross_entropy"),
    "all, three steps": ("tpc.relu", "layers='all', steps=3", "all", 3, "cross_entropy"),
    "all, smooth": ("tpc.gelu", "layers='all', steps=3", "all", 3, "mse"),
}


@pytest.mark.parametrize("name", FIRST)
def test_first_order_is_the_gradient_of_networks_that_learned(name):
    """The changes of the steps are constants: what is left is a plain gradient, at the weights of each task."""
    phi, arguments, layers, steps, loss = FIRST[name]
    size = 0.2 if loss == "mse" else 0.7
    plain = make(network(mlp(phi)))
    program = network(mlp(phi), f"{arguments}, order=1, step_size={size}, loss={loss!r}")
    adapted = make_adapted(program, plain)
    s, (x, y) = support(), queried()
    before = adapted.state()
    stored = {c.name for t in plain.limit.graph().stores for c in (t.coefficients, *t.columns)}
    moved, rows = {}, {}
    for task, trained in learned(restarted(plain), s, layers, steps, size, loss):
        here = s.queries == task
        known = trained.state()
        trained.step(x[here], y[here], lr=1.0, loss=loss)
        for key, value in trained.state().items():
            if key in stored:
                rows.setdefault(key, np.empty((len(x), *value.shape[1:])))[here] = value[len(known[key]) :]
            else:
                moved[key] = moved.get(key, 0.0) + value - known[key]
    adapted.step(x, y, lr=1.0, support=s, loss=loss)
    after = adapted.state()
    assert after.keys() == moved.keys() | rows.keys()
    for key, value in moved.items():
        np.testing.assert_allclose(after[key] - before[key], value, rtol=0, atol=1e-12, err_msg=key)
    for key, value in rows.items():
        np.testing.assert_allclose(after[key][len(before[key]) :], value, rtol=0, atol=1e-12, err_msg=key)
