"""Random nonlinearities with closed forms, for property tests."""

from __future__ import annotations

import numpy as np
import sympy as sp
from hypothesis import strategies as st

from tpc.program.functions import X, absolute, gelu, relu, sign, step

KINKED = [relu(X), absolute(X), relu(X) ** 2, relu(-X), X * relu(X), step(X), sign(X)]
SMOOTH = [
    X,
    X**2 - 1,
    X**3,
    sp.erf(X),
    sp.erf(X / 2),
    gelu(X),
    sp.sin(X),
    sp.cos(2 * X),
    sp.exp(X / 2),
    sp.exp(-(X**2)),
    X * sp.exp(-(X**2)),
    sp.Integer(1),
]
coefficients = st.sampled_from([sp.Integer(1), sp.Integer(-2), sp.Rational(1, 3), sp.Rational(3, 2)])


def sums(atoms):
    """One to three atoms with small rational coefficients."""
    term = st.tuples(coefficients, st.sampled_from(atoms))
    return st.lists(term, min_size=1, max_size=3).map(lambda ts: sp.Add(*(a * f for a, f in ts))).filter(bool)


smooth = sums(SMOOTH)
any_phi = sums(SMOOTH + KINKED)


@st.composite
def covariances(draw, low=0.1, high=4.0, rho=0.999):
    """(p, q, c) away from the degenerate edge."""
    p, q = draw(st.floats(low, high)), draw(st.floats(low, high))
    return p, q, draw(st.floats(-rho, rho)) * float(np.sqrt(p * q))
