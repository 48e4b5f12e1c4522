"""Kernels without a closed form for every variance that they accept, and their refusal beyond.

The suite looks at a few points of every function; `python -m tests.gaussian.test_domain` at a grid of all of them.
"""

from __future__ import annotations

import numpy as np
import pytest
from sympy import DiracDelta

from tests.support import gaussian_pairs as reference
from tpc.errors import GaussianError
from tpc.gaussian import fitting, kernel
from tpc.gaussian.numeric import NumericKernel, PairTables
from tpc.program.expression import parse_nonlinearity
from tpc.program.functions import X

# function: its fastest frequency, and what it must be known up to
FUNCTIONS = {
    "tanh": (0, 1e8),
    "sigmoid": (0, 1e8),
    "silu": (0, 1e8),
    "softplus": (0, 1e8),
    "softsign": (0, 1e8),
    "elu(x, 2)": (0, 1e8),
    "x*tanh(softplus(x))": (0, 1e8),
    "x*(1 + tanh(sqrt(2/pi)*(x + 0.044715*x**3)))/2": (0, 1e8),
    "x*sigmoid(1.702*x)": (0, 1e8),
    "atan(x)": (0, 1e8),
    "log(1 + x**2)": (0, 1e8),
    "x**2*tanh(x)": (0, 1e8),
    "tanh(20*x)": (0, 1e8),
    "silu(x/20)": (0, 1e8),
    "sin(x)*tanh(x)": (1, 100),
    "exp(sin(x))": (6, 3),
    "erf(sin(x))": (6, 3),
}
BOUND = 1e-10  # relative to √(V[φ,φ](p,p,p) V[ψ,ψ](q,q,q)), a hundredth of what is wanted
CORRELATIONS = (-1.0, -1 + 1e-12, -0.999, -0.4, 0.0, 0.3, 0.9, 1 - 1e-6, 1 - 1e-12, 1.0)
VARIANCES = (0.0, 1e-12, *10.0 ** np.arange(-8, 9, 1.6), 1e8)


def kinds(name):
    """(φ, φ), (φ', φ') and (φ, φ'), where they have no closed form; δ is left to V[φ, δ]."""
    phi = parse_nonlinearity(name)
    slope = phi.diff(X).replace(DiracDelta, lambda *_: 0)
    found = {"φφ": kernel(phi, phi), "φ′φ′": kernel(slope, slope), "φφ′": kernel(phi, slope)}
    return {shown: k for shown, k in found.items() if k.value is None}


def tabulated(k, p, q, c):
    """The tables' value at one point."""
    return float(k.numeric(*(np.array([float(x)]) for x in (p, q, c)))[0])


def error(k, p, q, c, wave):
    """The error of the tables at one point, relative to the Cauchy–Schwarz scale; absolute where that is 0."""
    found = tabulated(k, p, q, c)
    if p == 0 or q == 0:
        p, q = max(p, 1e-200), max(q, 1e-200)
        c = np.sqrt(p) * np.sqrt(q) * (1 + 1e-9)  # θ = 0, which says what a jump at 0 does
    wanted = reference.value(k.phi, k.psi, p, q, c, wave)
    return abs(found - wanted) / max(reference.scale(k.phi, k.psi, p, q, wave), 1e-30)


def points(count, largest, seed):
    """Variances from 1e-8 to `largest`, their ratio too, and every correlation in turn."""
    rng = np.random.default_rng(seed)
    for k in range(count):
        p, q = 10 ** rng.uniform(-8, np.log10(largest), 2)
        if k % 3 == 0:
            q = min(p * 10 ** rng.uniform(-0.5, 0.5), largest)
        rho = CORRELATIONS[(k + seed) % len(CORRELATIONS)]
        yield float(p), float(q), float(np.clip(rho * np.sqrt(p) * np.sqrt(q), -np.sqrt(p * q), np.sqrt(p * q)))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_variance(name):
    wave, largest = FUNCTIONS[name]
    for number, (shown, k) in enumerate(kinds(name).items()):
        assert min(k.numeric.largest) >= largest
        for point in points(2, largest, seed=len(name) + number):
            scale = reference.scale(k.phi, k.psi, *point[:2], wave)
            wanted = reference.value(k.phi, k.psi, *point, wave)
            assert abs(tabulated(k, *point) - wanted) < BOUND * scale, (shown, point)
            assert abs(k.at(*point) - wanted) < BOUND * scale, (shown, point)


RIGHT = {  # E φ², by the quadrature of tests/support
    ("tanh", 533.0): 0.965466404963,
    ("sigmoid", 533.0): 0.482772878880,
    ("sin(x)*tanh(x)", 2.0): 0.342064500422,
    ("erf(sin(x))", 2.0): 0.404728985412,
    ("exp(sin(x))", 2.0): 2.25434825179,
}


@pytest.mark.parametrize(("name", "variance"), RIGHT)
def test_second_moments(name, variance):
    k = kernel(parse_nonlinearity(name))
    p = np.array([variance])
    assert reference.scale(k.phi, k.phi, variance, variance, 6) == pytest.approx(RIGHT[name, variance], rel=1e-9)
    assert k.numeric(p, p, p)[0] == pytest.approx(RIGHT[name, variance], rel=1e-9)
    assert k.at(variance, variance, variance) == pytest.approx(RIGHT[name, variance], rel=1e-9)


@pytest.mark.parametrize("name", ["tanh", "elu", "log(1 + x**2)", "softplus"])
def test_the_least_variances(name):
    """At 0, and where floats of the function itself cancel: log(1 + x²) and e^x − 1 of 1e-20."""
    k = kernel(parse_nonlinearity(name))
    for p, q, rho in ((0, 0, 0), (0, 2.0, 0), (1e-30, 1e-30, 0.5), (1e-22, 3.0, -0.9), (1e-12, 1e-14, 0.99)):
        c = rho * np.sqrt(p * q)
        found = tabulated(k, p, q, c)
        a = _leading(k.phi)
        if p == 0 or q == 0:
            assert found == pytest.approx(a[0] * (a[0] if q == 0 else reference.single(k.phi, q)), abs=1e-10)
        elif q < 1:  # a₀ + a₁u + a₂u²: E of the product, to leading orders
            wanted = a[0] ** 2 + a[1] ** 2 * c + a[2] ** 2 * (p * q + 2 * c * c) + a[0] * a[2] * (p + q)
            assert found == pytest.approx(wanted, rel=1e-4 if p > 1e-20 else 1e-7)
        else:
            assert found == pytest.approx(k.at(p, q, c), rel=1e-9)


@pytest.mark.parametrize("name", ["softplus", "sigmoid", "softsign'", "exp(sin(x))", "step(x)*sigmoid(x)"])
def test_what_does_not_vanish_at_zero(name):
    """φ(0) ≠ 0: E φ² is p^0 there, but for the rounding of both."""
    k = kernel(parse_nonlinearity(name))
    for p, q in ((0.0, 0.0), (0.0, 1e-8), (1e-300, 0.0), (1e-25, 2.0)):
        assert error(k, p, q, 0.0, 1) < BOUND
        assert tabulated(k, p, q, -0.0) == tabulated(k, p, q, 0.0)


def test_what_cancels_near_zero():
    """x − tanh x = x³/3 − 2x⁵/15 + …"""
    k = kernel(parse_nonlinearity("x - tanh(x)"))
    for p in (1e-8, 1e-16, 1e-24):
        assert tabulated(k, p, p, p) == pytest.approx(15 * p**3 / 9 - 2 * 2 * 105 * p**4 / 45, rel=1e-9)


def _leading(phi):
    """The first Taylor coefficients at 0; of elu, which is straight there, as of x."""
    if phi.has(parse_nonlinearity("step(x)").func):
        return [0.0, 1.0, 0.0]
    return [float(phi.diff(X, n).subs(X, 0)) / (1, 1, 2)[n] for n in range(3)]


@pytest.mark.parametrize("name", ["sin(x)*tanh(x)", "tanh"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_beyond_the_domain_everything_is_refused(name, dtype):
    k = kernel(parse_nonlinearity(name))
    largest = k.numeric.largest[0]
    wide = np.array([[0.5], [4 * largest]], dtype=dtype)
    calls = {
        "arrays": lambda: k.numeric(wide, wide.T, 0 * wide * wide.T),
        "truncated": lambda: k.numeric.truncated(1e-7)(wide, wide.T, 0 * wide * wide.T),
        "at, arrays": lambda: k.at(wide[:, 0], wide[:, 0], wide[:, 0], dtype=str(wide.dtype)),
        "at, numbers": lambda: k.at(4 * largest, 1.0, 0.1),
        "series": lambda: k.series(4).tabulated()[0](wide),
        "coefficients": lambda: k.series(4).numbers(4 * largest, 1.0),
    }
    for shown, call in calls.items():
        with pytest.raises(GaussianError) as caught:
            call()
        assert f"up to {largest:.3g}, got {4 * largest:.3g}" in str(caught.value), shown
        assert "Fix: " in str(caught.value)


def test_refusals_call_functions_by_their_names():
    """sin(x)·tanh(x) has none, and its derivative is told as it is written; those of silu have."""
    slope = kernel(parse_nonlinearity("silu'"), parse_nonlinearity("silu''"))
    wide = np.array([4e9])
    for call in (lambda: slope.numeric(wide, wide, wide), lambda: slope.at(4e9, 1.0, 0.1)):
        with pytest.raises(
            GaussianError, match=r"^V\[silu′, silu″\] is known .* beyond, there are no tables"
        ) as caught:
            call()
        assert "exp" not in str(caught.value)
    with pytest.raises(GaussianError, match=r"^V\[tanh, 1\] .* got 4e\+09: beyond, there are no tables"):
        kernel(parse_nonlinearity("tanh")).series(2).tabulated()[0](wide)
    with pytest.raises(
        GaussianError, match=r"^V\[exp\(x\)\*tanh\(x\), silu\] .* beyond, exp\(x\)\*tanh\(x\) varies or"
    ):
        kernel(parse_nonlinearity("exp(x)*tanh(x)"), parse_nonlinearity("silu")).at(9.0, 1.0, 0.1)
    with pytest.raises(GaussianError, match=r"no accurate kernel .* got none: .*\n  Fix: use a smoother"):
        kernel(parse_nonlinearity("sin(300*x)*tanh(x)")).at(1.0, 1.0, 0.1)
    with pytest.raises(GaussianError, match=r"no accurate kernel V\[cos\(200\*x\*\*2\), silu′\]: expected"):
        _ = kernel(parse_nonlinearity("cos(200*x**2)"), parse_nonlinearity("silu'")).numeric


def test_a_cell_without_an_accurate_table_is_told_by_name(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # nothing is kept there
    monkeypatch.setattr(fitting, "TOLERANCE", 0.0)
    slope = parse_nonlinearity("sigmoid''")
    p = np.array([0.123])
    wanted = r"no accurate kernel V\[sigmoid″, sigmoid″\] for variances from 1\.0e-01 to 1\.0e\+01"
    with pytest.raises(GaussianError, match=wanted):
        NumericKernel(slope, slope, PairTables(slope, slope), None, (), (1e9, 1e9))(p, p, p)


def test_accuracy_and_domain_are_told_together():
    k = kernel(parse_nonlinearity("exp(sin(x))"))
    assert "accurate to 1e-10 of √(V[φ,φ] V[ψ,ψ]) for variances up to 31.6" in k.conditions[-1]


def test_values_do_not_depend_on_the_other_entries():
    """A block of many cells is cut into them; an entry is what it is alone."""
    k = kernel(parse_nonlinearity("silu"))
    rng = np.random.default_rng(0)
    p, q = 10 ** rng.uniform(-6, 6, (9, 1)), 10 ** rng.uniform(-6, 6, (1, 11))
    c = rng.uniform(-1, 1, (9, 11)) * np.sqrt(p * q)
    whole = k.numeric(p, q, c)
    assert np.allclose(whole, k.numeric(p + 0 * c, q + 0 * c, c), rtol=1e-11)
    for i, j in ((0, 0), (3, 7), (8, 10)):
        alone = k.numeric(*(np.array([x]) for x in (p[i, 0], q[0, j], c[i, j])))[0]
        assert whole[i, j] == pytest.approx(alone, rel=1e-11)
    assert k.numeric(p[:0], q, c[:0]).shape == (0, 11)
    assert np.isnan(k.numeric(p * np.nan, q, c)).all()


def test_a_spike_far_narrower_than_the_latents():
    """softsign′ is 1/(1 + |x|)², and at 0 its slope is that of a kink: it bends within 1e-4.5 standard deviations."""
    slope = parse_nonlinearity("softsign").diff(X)
    k = kernel(slope, slope)
    assert min(k.numeric.largest) == 1e9
    for p in (2e8, 9e8):
        for rho in (1.0, 1 - 1e-10, 0.3):
            wanted = reference.value(slope, slope, p, p, rho * p)
            assert abs(tabulated(k, p, p, rho * p) - wanted) < BOUND * reference.scale(slope, slope, p, p)


def main():
    """The largest error of every function and kind of kernel over the grid."""
    print(f"{'function':50} {'kernel':6} {'known up to':>11} {'points':>6} {'largest error':>13}")
    for name, (wave, _) in FUNCTIONS.items():
        for shown, k in kinds(name).items():
            largest = min(k.numeric.largest)
            some = [v for v in VARIANCES if v <= largest]
            rng = np.random.default_rng(1)
            worst, count = 0.0, 0
            for p in some:
                for q in rng.choice(some, 3, replace=False):
                    for rho in rng.choice(CORRELATIONS, 3, replace=False):
                        root = np.sqrt(p) * np.sqrt(q)
                        worst = max(worst, error(k, p, q, float(np.clip(rho * root, -root, root)), wave))
                        count += 1
            print(f"{name:50} {shown:6} {largest:11.3g} {count:6d} {worst:13.1e}", flush=True)


if __name__ == "__main__":
    main()
