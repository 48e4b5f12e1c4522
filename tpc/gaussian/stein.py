"""Stein's lemma: polynomial factors leave an expectation of functions of linear forms, and pairs of functions remain.

    E[u_i F] = Σ_j Cov(u_i, u_j) E ∂_j F

Where φ and ψ have kinks, enough derivatives put Dirac deltas on both sides of a kernel, which then is infinite at
|ρ| = 1, while the sum of all terms is not. There the lemma is applied given one of the two forms, v: u_i less its
regression on v is independent of v, so that v stays a factor like any other and its function is never differentiated,

    E[u_i F] = Cov(u_i, v)/Var v · E[v F] + Σ_{j ≠ v} Cov(u_i, u_j | v) E ∂_j F.

A derivative of the other form's function, that of u, comes with Cov(u_i, u | v), which vanishes like √(pq − c²): a
product with k of them is bounded as long as the kernel diverges no faster than (pq − c²)^(−k/2).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import sympy as sp
from sympy import Expr, Symbol

from tpc.errors import GaussianError
from tpc.gaussian.covariance import Covariance
from tpc.gaussian.deltas import evaluable, slope
from tpc.gaussian.factors import UNIT, decompose
from tpc.gaussian.kernel import Kernel, kernel
from tpc.gaussian.moments import E, Reduction, Step
from tpc.gaussian.primitives import guard_zero, rsqrt
from tpc.gaussian.regular import has_kink, times_argument
from tpc.gaussian.symbols import C, P, Q, gram
from tpc.gaussian.tidy import collect_terms
from tpc.program.functions import X

Form = tuple[Expr, ...]  # coefficients of a linear form in the variables
Parts = dict[Form, Expr]  # linear form -> function of X applied to it
Share = tuple[Expr, Parts, int]  # coefficient · E of the parts, and the order of the coefficient


@dataclass(frozen=True)
class ExpectationTerm:
    """coefficient · `V[φ,ψ](variance[0], variance[1], covariance)`; without a kernel, the coefficient alone.

    A unary expectation E φ(u_i) is the kernel V[φ,1] with both sites i. `order` counts the factors of the coefficient
    that vanish like √(pq − c²).
    """

    coefficient: Expr
    kernel: Kernel | None = None
    variances: tuple[Expr, Expr] | None = None
    covariance: Expr | None = None
    order: int = 0

    @property
    def divergence(self) -> int:
        """d, where the term grows like (pq − c²)^(−d/2) as |ρ| → 1; not above 0 where it is bounded."""
        return 0 if self.kernel is None else self.kernel.pole - self.order

    @property
    def value(self) -> Expr | None:
        """The term in Gram symbols, None when its kernel is numeric."""
        if self.kernel is None or self.variances is None:
            return self.coefficient
        if self.kernel.value is None:
            return None
        at = {P: self.variances[0], Q: self.variances[1], C: self.covariance}
        return self.coefficient * self.kernel.value.xreplace(at)


def form_to_condition_on(parts: Parts, variables: tuple[Symbol, ...]) -> Form | None:
    """The form to apply Stein's lemma given, None where the plain lemma gives no kernel that diverges at |ρ| = 1.

    Of two forms it is the one given which the terms diverge least, then that with fewer terms, then the first.
    """
    bent = [form for form, f in parts.items() if f.as_poly(X) is None]
    if len(bent) != 2 or len(parts) == 2 or not all(has_kink(parts[form]) for form in bent):
        return None
    if _cost(parts, variables, None)[0] <= 0:
        return None
    return min(bent, key=lambda form: (*_cost(parts, variables, form), [-x for x in form]))


def _cost(parts: Parts, variables: tuple[Symbol, ...], given: Form | None) -> tuple[float, int]:
    """How fast the terms diverge at |ρ| = 1, and how many they are."""
    reducer = Reducer(variables)
    reducer.reduce(sp.S.One, parts, given)
    try:
        terms = reducer.terms()
    except GaussianError:  # a kernel that cannot be evaluated
        return float("inf"), len(reducer.found)
    return max((t.divergence for t in terms), default=0), len(terms)


class Reducer:
    """Strips polynomial factors by Stein and collects the kernels that are left."""

    def __init__(self, variables: tuple[Symbol, ...]) -> None:
        self.variables = variables
        self.found: dict[tuple[tuple[Form, Expr], ...], tuple[Expr, int]] = {}
        self.steps: list[Step] = []

    def covariance(self, a: Form, b: Form, given: Form | None = None) -> Expr:
        """Cov of two linear forms in Gram symbols, given a third one."""
        pairs = product(enumerate(a), enumerate(b))
        whole = sp.Add(*(x * y * gram(i, j) for (i, x), (j, y) in pairs))
        if given is None:
            return whole
        inverse = rsqrt(self.covariance(given, given)) ** 2
        return whole - inverse * self.covariance(a, given) * self.covariance(b, given)

    def reduce(self, coefficient: Expr, parts: Parts, given: Form | None = None, order: int = 0) -> None:
        """Add coefficient · E Π f(form) to the collected terms, by Stein's lemma `given` a form if there is one."""
        if len(parts) <= 1:
            return self._keep(coefficient, parts, order)
        for form in sorted(parts, key=lambda f: [-abs(x) for x in f], reverse=True):
            poly = parts[form].as_poly(X)
            if poly is None:
                continue
            rest = {f: g for f, g in parts.items() if f != form}
            shares: list[Share] = []
            for (power,), scale in poly.terms():
                lowered = coefficient * scale
                if power == 0:
                    self.reduce(lowered, rest, given, order)
                    continue
                current = {**rest, form: X ** (power - 1)} if power > 1 else rest
                shares.extend(self._stein(form, lowered, current, given, order))
            if shares:
                rule = "Stein" if given is None else f"Stein given {self._form(given)}"
                self.steps.append(Step(rule, E(self._shown(parts)), self._sum(shares, coefficient)))
            for weight, smaller, vanishing in shares:
                self.reduce(weight, smaller, given, vanishing)
            return None
        return self._keep(coefficient, parts, order)

    def _stein(self, form: Form, coefficient: Expr, parts: Parts, given: Form | None, order: int) -> list[Share]:
        out: list[Share] = []
        for other, f in parts.items():
            if other == given:
                weight = coefficient * self.covariance(form, other) * rsqrt(self.covariance(other, other)) ** 2
                made = times_argument(f)
            else:
                weight, made = coefficient * self.covariance(form, other, given), slope(f)
            if made == 0 or weight == 0:
                continue
            left = {k: g for k, g in parts.items() if k != other}
            if made.has(X):
                left[other] = made
            else:
                weight *= made
            vanishing = given is not None and other != given and f.as_poly(X) is None
            out.append((weight, left, order + vanishing))
        return out

    def _form(self, form: Form) -> Expr:
        return sp.Add(*(x * v for x, v in zip(form, self.variables, strict=True)))

    def _shown(self, parts: Parts) -> Expr:
        return sp.Mul(*(g.subs(X, self._form(f)) for f, g in parts.items()))

    def _sum(self, shares: list[Share], scale: Expr) -> Expr:
        return sp.Add(*(weight / scale * (E(self._shown(p)) if p else 1) for weight, p, _ in shares))

    def _keep(self, coefficient: Expr, parts: Parts, order: int) -> None:
        key = tuple(sorted(parts.items(), key=lambda item: [-x for x in item[0]]))
        total, least = self.found.get(key, (sp.S.Zero, order))
        self.found[key] = total + coefficient, min(order, least)

    def terms(self) -> tuple[ExpectationTerm, ...]:
        """The collected terms, kernels looked up; raises when three factors have no closed form."""
        out = []
        for key, (coefficient, order) in self.found.items():
            if coefficient == 0:
                continue
            forms, functions = [form for form, _ in key], [f for _, f in key]
            if not key:
                out.append(ExpectationTerm(coefficient))
            elif len(key) <= 2:
                first, last = forms[0], forms[-1]
                variances = self.covariance(first, first), self.covariance(last, last)
                covariance = self.covariance(first, last)
                second = functions[1] if len(key) == 2 else sp.S.One
                for factor, phi, psi in evaluable(functions[0], second, *variances, covariance):
                    pair = kernel(phi, psi)
                    out.append(ExpectationTerm(coefficient * factor, pair, variances, covariance, order))
                    self.steps.extend(pair.rules)
            else:
                out.append(ExpectationTerm(coefficient * self._many(forms, functions)))
        return tuple(out)

    def _many(self, forms: list[Form], functions: list[Expr]) -> Expr:
        shown = self._shown(dict(zip(forms, functions, strict=True)))
        sums = [decompose(f) for f in functions]
        entries = [[self.covariance(a, b) for b in forms] for a in forms]
        derivation, total = Reduction(), sp.S.Zero
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
