"""Expectations over several jointly Gaussian variables, reduced to the unary and pair table.

E fn(u_0, …, u_{k−1}) is split into products of functions of one linear form each; polynomial factors are
stripped by Stein's lemma, E[u_i F] = Σ_j Cov(u_i, u_j) E ∂_j F, and what is left is V[φ,ψ] of two forms,
E φ of one, or, for three and more kinked or error functions, an orthant probability.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import sympy as sp
from sympy import Expr, Symbol

from tpc.errors import GaussianError
from tpc.gaussian.covariance import Covariance
from tpc.gaussian.factors import UNIT, decompose
from tpc.gaussian.kernel import Kernel, kernel
from tpc.gaussian.moments import Derivation, E, Step
from tpc.gaussian.primitives import guard_zero
from tpc.gaussian.symbols import C, P, Q, gram
from tpc.gaussian.tidy import collect_terms
from tpc.program.functions import X

Form = tuple[Expr, ...]  # coefficients of a linear form in the variables
Parts = dict[Form, Expr]  # linear form -> function of X applied to it


@dataclass(frozen=True)
class ExpectationTerm:
    """coefficient · `V[φ,ψ](variance[0], variance[1], covariance)`; without a kernel, the coefficient alone.

    A unary expectation E φ(u_i) is the kernel V[φ,1] with both sites i.
    """

    coefficient: Expr
    kernel: Kernel | None = None
    variances: tuple[Expr, Expr] | None = None
    covariance: Expr | None = None

    @property
    def value(self) -> Expr | None:
        """The term in Gram symbols, None when its kernel is numeric."""
        if self.kernel is None or self.variances is None:
            return self.coefficient
        if self.kernel.value is None:
            return None
        at = {P: self.variances[0], Q: self.variances[1], C: self.covariance}
        return self.coefficient * self.kernel.value.xreplace(at)


@dataclass(frozen=True)
class Expectation:
    """E fn(u_0, …, u_{k−1}) as a sum of terms in the Gram symbols gram(i, j) = Cov(u_i, u_j)."""

    fn: Expr
    variables: tuple[Symbol, ...]
    terms: tuple[ExpectationTerm, ...]
    rules: tuple[Step, ...]

    @property
    def value(self) -> Expr | None:
        """The closed form, None when some kernel in it is numeric."""
        values = [t.value for t in self.terms]
        return None if any(v is None for v in values) else sp.Add(*values)

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
    reducer = _Reducer(variables)
    for coefficient, parts in split(fn, variables):
        reducer.reduce(coefficient, parts)
    return Expectation(fn, variables, reducer.terms(), tuple(reducer.steps))


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


class _Reducer:
    """Strips polynomial factors by Stein and collects the kernels that are left."""

    def __init__(self, variables: tuple[Symbol, ...]) -> None:
        self.variables = variables
        self.found: dict[tuple[tuple[Form, Expr], ...], Expr] = {}
        self.steps: list[Step] = []

    def covariance(self, a: Form, b: Form) -> Expr:
        """Cov of two linear forms in Gram symbols."""
        pairs = product(enumerate(a), enumerate(b))
        return sp.Add(*(x * y * gram(i, j) for (i, x), (j, y) in pairs))

    def reduce(self, coefficient: Expr, parts: Parts) -> None:
        """Add coefficient · E Π f(form) to the collected terms."""
        if len(parts) <= 1:
            return self._keep(coefficient, parts)
        for form in sorted(parts, key=lambda f: [-abs(x) for x in f], reverse=True):
            poly = parts[form].as_poly(X)
            if poly is None:
                continue
            rest = {f: g for f, g in parts.items() if f != form}
            derivatives: list[tuple[Expr, Parts]] = []
            for (power,), scale in poly.terms():
                lowered = coefficient * scale
                if power == 0:
                    self.reduce(lowered, rest)
                    continue
                current = {**rest, form: X ** (power - 1)} if power > 1 else rest
                derivatives.extend(self._stein(form, lowered, current))
            if derivatives:
                self.steps.append(Step("Stein", E(self._shown(parts)), self._sum(derivatives, coefficient)))
            for weight, smaller in derivatives:
                self.reduce(weight, smaller)
            return None
        return self._keep(coefficient, parts)

    def _stein(self, form: Form, coefficient: Expr, parts: Parts) -> list[tuple[Expr, Parts]]:
        out = []
        for other, f in parts.items():
            slope = f.diff(X)
            weight = coefficient * self.covariance(form, other)
            if slope == 0 or weight == 0:
                continue
            left = {k: g for k, g in parts.items() if k != other}
            if slope.has(X):
                left[other] = slope
            else:
                weight *= slope
            out.append((weight, left))
        return out

    def _shown(self, parts: Parts) -> Expr:
        forms = {f: sp.Add(*(x * v for x, v in zip(f, self.variables, strict=True))) for f in parts}
        return sp.Mul(*(g.subs(X, forms[f]) for f, g in parts.items()))

    def _sum(self, parts: list[tuple[Expr, Parts]], scale: Expr) -> Expr:
        return sp.Add(*(weight / scale * (E(self._shown(p)) if p else 1) for weight, p in parts))

    def _keep(self, coefficient: Expr, parts: Parts) -> None:
        key = tuple(sorted(parts.items(), key=lambda item: [-x for x in item[0]]))
        self.found[key] = self.found.get(key, sp.S.Zero) + coefficient

    def terms(self) -> tuple[ExpectationTerm, ...]:
        """The collected terms, kernels looked up; raises when three factors have no closed form."""
        out = []
        for key, coefficient in self.found.items():
            if coefficient == 0:
                continue
            forms, functions = [form for form, _ in key], [f for _, f in key]
            if not key:
                out.append(ExpectationTerm(coefficient))
            elif len(key) <= 2:
                pair = kernel(functions[0], functions[1] if len(key) == 2 else sp.S.One)
                first, last = forms[0], forms[-1]
                variances = self.covariance(first, first), self.covariance(last, last)
                out.append(ExpectationTerm(coefficient, pair, variances, self.covariance(first, last)))
                self.steps.extend(pair.rules)
            else:
                out.append(ExpectationTerm(coefficient * self._many(forms, functions)))
        return tuple(out)

    def _many(self, forms: list[Form], functions: list[Expr]) -> Expr:
        shown = self._shown(dict(zip(forms, functions, strict=True)))
        sums = [decompose(f) for f in functions]
        entries = [[self.covariance(a, b) for b in forms] for a in forms]
        derivation, total = Derivation(), sp.S.Zero
        law, names = Covariance.of(entries), self.variables[: len(forms)]
        for chosen in product(*(s or ((sp.S.One, None),) for s in sums)):
            factors = tuple(f or UNIT for _, f in chosen)
            value = None if None in sums else derivation.moment(factors, law, names)
            if value is None:
                raise GaussianError(
                    f"no closed form for E {shown}: expected at most two factors that are not polynomials, "
                    f"or three kinked or error functions without powers; got {len(functions)}"
                )
            total += sp.Mul(*(c for c, _ in chosen)) * value
        self.steps.extend(derivation.steps)
        count = range(len(forms))
        sites = tuple((entries[i][i], tuple(entries[i][j] for j in count if j != i)) for i in count)
        return guard_zero(collect_terms(total), sites)
