"""Expectations over several jointly Gaussian variables, reduced to the unary and pair table.

E fn(u_0, …, u_{k−1}) is split into products of functions of one linear form each; polynomial factors are
stripped by Stein's lemma (`tpc.gaussian.stein`), and what is left is V[φ,ψ] of two forms, E φ of one, or, for
three and more kinked or error functions, an orthant probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import sympy as sp
from sympy import Expr, Symbol

from tpc.errors import GaussianError
from tpc.gaussian.moments import Step
from tpc.gaussian.stein import ExpectationTerm, Form, Parts, Reducer, form_to_condition_on
from tpc.program.functions import X


@dataclass(frozen=True)
class Expectation:
    """E fn(u_0, …, u_{k−1}) as a sum of terms in the Gram symbols gram(i, j) = Cov(u_i, u_j).

    `given` says that Stein's lemma was applied given one of the variables, which takes terms together that diverge
    where two variables are one up to a factor.
    """

    fn: Expr
    variables: tuple[Symbol, ...]
    terms: tuple[ExpectationTerm, ...]
    rules: tuple[Step, ...]
    given: bool = False

    @property
    def value(self) -> Expr | None:
        """The closed form, None when some kernel in it is numeric."""
        values = [t.value for t in self.terms]
        return None if any(v is None for v in values) else sp.Add(*values)

    @property
    def divergence(self) -> int:
        """d, where the expectation grows like (pq − c²)^(−d/2) as |ρ| → 1; not above 0 where it is bounded."""
        return max((t.divergence for t in self.terms), default=0)

    @property
    def conditions(self) -> tuple[str, ...]:
        """The conditions of the kernels used."""
        found = (c for t in self.terms if t.kernel is not None for c in t.kernel.conditions)
        return tuple(dict.fromkeys(found))


def expectation(fn: Expr, variables: Sequence[Symbol]) -> Expectation:
    """E fn(u_0, …) for jointly Gaussian zero-mean u with Cov(u_i, u_j) = gram(i, j).

    Raises `GaussianError` when fn is not a sum of products of functions of one linear form each, when the
    expectation does not exist, or when three or more of its factors have no closed form together.
    """
    return _expectation(sp.sympify(fn), tuple(variables))


@lru_cache(maxsize=1024)
def _expectation(fn: Expr, variables: tuple[Symbol, ...]) -> Expectation:
    reducer = Reducer(variables)
    given = False
    for coefficient, parts in split(fn, variables):
        form = form_to_condition_on(parts, variables)
        given = given or form is not None
        reducer.reduce(coefficient, parts, form)
    return Expectation(fn, variables, reducer.terms(), tuple(reducer.steps), given)


def split(fn: Expr, variables: tuple[Symbol, ...]) -> list[tuple[Expr, Parts]]:
    """fn as Σ coefficient · Π f(form): every f a function of X, every form linear in the variables.

    Other symbols are parameters, and may multiply.
    """
    present = [v for v in variables if fn.has(v)]
    if not present:
        return [(fn, {})]
    if len(present) == 1 and fn.free_symbols <= set(variables):
        form = tuple(sp.Integer(v == present[0]) for v in variables)
        return [(sp.S.One, {form: fn.subs(present[0], X)})]
    if fn.is_Add:
        return [one for arg in fn.args for one in split(arg, variables)]
    if fn.is_Mul:
        return _products([split(arg, variables) for arg in fn.args])
    if fn == present[0]:
        return [(sp.S.One, {tuple(sp.Integer(v == fn) for v in variables): X})]
    if fn.is_Pow and fn.exp.is_Integer and fn.exp > 0 and fn.base != sp.E:
        return _products([split(fn.base, variables)] * int(fn.exp))
    if isinstance(fn, sp.exp) and fn.args[0].is_Add:
        return _products([split(sp.exp(arg), variables) for arg in fn.args[0].args])
    parameters = sorted(s.name for s in fn.free_symbols - set(variables))
    if parameters:
        raise GaussianError(f"expected {', '.join(parameters)} as a factor only, got it inside {fn}")
    linear = _linear(fn.args[0], variables) if len(fn.args) == 1 else None
    if linear is None:
        raise GaussianError(
            f"no rule for E {fn}: expected products of functions of one variable (or linear combination) each"
        )
    form, shift = linear
    return [(sp.S.One, {form: fn.func(X + shift)})]


def _products(parts: list[list[tuple[Expr, Parts]]]) -> list[tuple[Expr, Parts]]:
    out = []
    for chosen in product(*parts):
        merged: Parts = {}
        for _, functions in chosen:
            for form, f in functions.items():
                merged[form] = merged.get(form, sp.S.One) * f
        out.append((sp.Mul(*(c for c, _ in chosen)), merged))
    return out


def _linear(argument: Expr, variables: tuple[Symbol, ...]) -> tuple[Form, Expr] | None:
    poly = argument.as_poly(*variables)
    if poly is None or poly.total_degree() > 1:
        return None
    return tuple(poly.coeff_monomial(v) for v in variables), poly.coeff_monomial(1)
