"""Hermite expansions of functions of several Gaussian variables, by multi-indices."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

import sympy as sp
from sympy import Expr

from tpc.program.functions import argument, partial

Index = tuple[int, ...]  # a multi-index: how often each variable is differentiated by


def indices(count: int, degree: int) -> Iterator[Index]:
    """The multi-indices of a degree in `count` variables."""
    if count <= 1:
        if count or not degree:
            yield (degree,) * count
        return
    for first in range(degree, -1, -1):
        yield from ((first, *rest) for rest in indices(count - 1, degree - first))


@lru_cache(maxsize=4096)
def derivative(fn: Expr, index: Index) -> Expr:
    """∂^index fn in u0, u1, …"""
    for i, n in enumerate(index):
        if n:
            lower = (*index[:i], n - 1, *index[i + 1 :])
            return partial(derivative(fn, lower), argument(i))
    return fn


def covariance_symbol(i: int, j: int) -> sp.Symbol:
    """The symbol of E[u_i u_j] in `wick`."""
    return sp.Symbol(f"c{min(i, j)}_{max(i, j)}", real=True)


@lru_cache(maxsize=1024)
def wick(index: Index) -> Expr:
    """The polynomial :u^index: in u_i and c_ij, u^index less its projection on polynomials of lower degree.

    For one variable of variance c it is c^(n/2) He_n(u/√c).
    """
    made: Expr = sp.Integer(1)
    for i, n in enumerate(index):
        for _ in range(n):
            paired = (covariance_symbol(i, j) * sp.diff(made, argument(j)) for j in range(len(index)))
            made = sp.expand(argument(i) * made - sp.Add(*paired))
    return made
