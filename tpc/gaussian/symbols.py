"""The symbols that Gaussian expectations are written in."""

from __future__ import annotations

from functools import cache

from sympy import Symbol

P = Symbol("p", positive=True)
"""Var u"""
Q = Symbol("q", positive=True)
"""Var v"""
C = Symbol("c", real=True)
"""Cov(u, v)"""
RHO = Symbol("rho", real=True)
"""C / sqrt(P Q)"""
U = Symbol("u", real=True)  # the Gaussian pair itself, in derivations
V = Symbol("v", real=True)
SIGMA = Symbol("s", positive=True)  # a standard deviation: the argument of a Mehler coefficient


@cache
def gram(i: int, j: int) -> Symbol:
    """Cov(u_i, u_j), one symbol for both orders; variances are positive."""
    i, j = min(i, j), max(i, j)
    if i == j:
        return Symbol(f"g{i}{i}", positive=True)
    return Symbol(f"g{i}{j}" if j < 10 else f"g{i}_{j}", real=True)
