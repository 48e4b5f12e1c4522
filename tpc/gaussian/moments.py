"""The rules that turn E[f_1(x_1) … f_n(x_n)] of normal-form factors into a closed form.

Every rule either removes something (a δ, an exponential, a power of x) or is terminal (a characteristic
function, an orthant probability), so the derivation ends. Where no rule applies the value is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import combinations
from math import comb

import sympy as sp
from sympy import Expr

from tpc.gaussian.covariance import Covariance
from tpc.gaussian.factors import UNIT, Factor, differentiate
from tpc.gaussian.terminal import orthant, thresholds, wave_and_sign, waves
from tpc.gaussian.tidy import collect_terms

E = sp.Function("E")  # expectation under the law of (u, v); E1, E2, … are the laws that rules pass to

Factors = tuple[Factor, ...]
Names = tuple[Expr, ...]

LONGEST = 1500  # operations of a value: beyond, a table is quicker to make, and to use
MOST = 1500  # moments of one derivation


@dataclass(frozen=True)
class Step:
    """One fired rule: left = right, where right may contain further expectations.

    `law` says what a new expectation E1, E2, … is under: variances, covariances and nonzero means by name.
    """

    rule: str
    left: Expr
    right: Expr
    law: tuple[tuple[str, Expr], ...] = ()

    def xreplace(self, images: dict[Expr, Expr]) -> Step:
        """The step with symbols replaced throughout."""
        law = tuple((name, value.xreplace(images)) for name, value in self.law)
        return Step(self.rule, self.left.xreplace(images), self.right.xreplace(images), law)


@dataclass
class Reduction:
    """Evaluates moments and records the rules that fired, outermost first."""

    steps: list[Step] = field(default_factory=list)
    memo: dict[tuple[Factors, Covariance], Expr | None] = field(default_factory=dict)
    laws: dict[Covariance, sp.FunctionClass] = field(default_factory=dict)

    def moment(self, factors: Factors, law: Covariance, names: Names) -> Expr | None:
        """E Π f_i(x_i) under the law, or None when no rule applies."""
        key = (factors, law)
        if key not in self.memo:
            if len(self.memo) >= MOST:
                return None
            self._name(law)
            before = len(self.steps)
            self.memo[key] = self._moment(factors, law, names)
            if len(self.steps) > before:  # outermost first: a step precedes those it called for
                self.steps.insert(before, self.steps.pop())
        return self.memo[key]

    def _moment(self, factors: Factors, law: Covariance, names: Names) -> Expr | None:
        if all(f == UNIT for f in factors):
            return sp.S.One
        if _is_odd(factors, law):
            return self._fired("parity", factors, law, names, sp.S.Zero, sp.S.Zero)
        for i, f in enumerate(factors):
            if f.delta >= 0:
                return self._condition(i, factors, law, names)
        for i, f in enumerate(factors):
            if f.quad != 0:
                rest = _swap(factors, i, replace(f, quad=sp.S.Zero))
                return self._change_law("Gaussian tilt", factors, law, names, rest, *law.tilt(i, f.quad))
        for i, f in enumerate(factors):
            if f.lin != 0:
                rest = _swap(factors, i, replace(f, lin=sp.S.Zero))
                return self._change_law("exponential shift", factors, law, names, rest, *law.shift(i, f.lin))
        if any(f.power for f in factors):
            return self._stein(factors, law, names)
        return self._terminal(factors, law, names)

    def _change_law(
        self,
        rule: str,
        factors: Factors,
        law: Covariance,
        names: Names,
        rest: Factors,
        scale: Expr,
        new: Covariance,
    ) -> Expr | None:
        """E[e^{−a x²/2} F] or E[e^{b x} F] = scale · E'[F]"""
        shown = scale * self._expectation(rest, new, names)
        inner = self.moment(rest, new, names)
        value = None if inner is None else scale * inner
        return self._fired(rule, factors, law, names, shown, value, self._described(new, names))

    def _condition(self, i: int, factors: Factors, law: Covariance, names: Names) -> Expr | None:
        """E[δ^(j)(x_i) F] = (−1)^j ∂_t^j (density(t) E[F | x_i = t]) at t = 0, by Leibniz."""
        order, mean = factors[i].delta, law.mean[i]
        others = [k for k in range(law.size) if k != i]
        rest, rest_names = tuple(factors[k] for k in others), tuple(names[k] for k in others)
        given, pivot, variance = law.condition(i), law.over[i][i], law.var(i)
        slopes = [law.over[i][k] / pivot for k in others]
        density = sp.sqrt(law.scale) / sp.sqrt(2 * sp.pi * pivot) * sp.exp(-(mean**2) / (2 * variance))
        lifted: list[tuple[Expr, Factors]] = [(sp.S.One, rest)]
        total: Expr = sp.S.Zero
        shown: Expr = sp.S.Zero
        for m in range(order + 1):  # m derivatives on E[F | t], order − m on the density
            weight = (-1) ** m * comb(order, m) * density * _hermite(order - m, -mean, variance)
            for coefficient, partner in lifted if weight != 0 else ():
                value = self.moment(partner, given, rest_names)
                if value is None:
                    return None
                total += weight * coefficient * value
                shown += weight * coefficient * self._expectation(partner, given, rest_names)
            if m < order:
                lifted = _lift(lifted, slopes)
        rule = "conditioning on δ" if order == 0 else "Price: derivatives of δ move to the partner"
        described = self._described(given, rest_names) if shown.has(self._name(given)) else ()
        return self._fired(rule, factors, law, names, shown, total, described)

    def _stein(self, factors: Factors, law: Covariance, names: Names) -> Expr | None:
        """E[x_i F] = mean_i E F + Σ_k Cov(x_i, x_k) E ∂_k F"""
        i = max(range(law.size), key=lambda k: (factors[k].power, -k))
        rest = _swap(factors, i, replace(factors[i], power=factors[i].power - 1))
        parts: list[tuple[Expr, Factors]] = [(law.mean[i], rest)] if law.mean[i] != 0 else []
        for k in range(law.size):
            slopes = differentiate(((sp.S.One, rest[k]),)) if law.over[i][k] != 0 else ()
            parts.extend((law.cov(i, k) * c, _swap(rest, k, h)) for c, h in slopes)
        total: Expr = sp.S.Zero
        for coefficient, partner in parts:
            value = self.moment(partner, law, names)
            if value is None:
                return None
            total += coefficient * value
        rule = "Isserlis" if all(f.is_polynomial for f in factors) else "Stein"
        shown = sp.Add(*(c * self._expectation(fs, law, names) for c, fs in parts))
        total = collect_terms(total)  # sums of sums would double with every power
        if total.count_ops() > LONGEST:
            return None
        return self._fired(rule, factors, law, names, shown, total)

    def _terminal(self, factors: Factors, law: Covariance, names: Names) -> Expr | None:
        signs, steps = thresholds(factors, law)
        found = [(i, *f.wave) for i, f in enumerate(factors) if f.wave]
        if not signs:
            rule, value = "characteristic function", waves(found, law)
        elif not found:
            rule = "arc-cosine" if len(steps) == len(signs) else "arcsine"
            value = orthant(signs, steps, law)
        elif len(signs) == 1:
            rule, value = "characteristic function of a half line", wave_and_sign(found, signs[0], law)
            if steps and value is not None:
                value = (waves(found, law) + value) / 2
        else:
            return None
        return self._fired(rule, factors, law, names, value, value)

    def _fired(
        self,
        rule: str,
        factors: Factors,
        law: Covariance,
        names: Names,
        shown: Expr | None,
        value: Expr | None,
        described: tuple[tuple[str, Expr], ...] = (),
    ) -> Expr | None:
        if value is not None:
            self.steps.append(Step(rule, self._expectation(factors, law, names), shown, described))
        return value

    def _name(self, law: Covariance) -> sp.FunctionClass:
        """E for the law asked about, then E1, E2, … in the order in which laws turn up."""
        count = len(self.laws)
        return self.laws.setdefault(law, sp.Function(f"E{count}") if count else E)

    def _expectation(self, factors: Factors, law: Covariance, names: Names) -> Expr:
        integrand = sp.Mul(*(f.to_expr(x) for f, x in zip(factors, names, strict=True)))
        return integrand if integrand == 1 else self._name(law)(integrand)

    def _described(self, law: Covariance, names: Names) -> tuple[tuple[str, Expr], ...]:
        label = str(self._name(law))[1:]
        entries = [(f"Var{label} {x}", law.var(i)) for i, x in enumerate(names)]
        for i, j in combinations(range(law.size), 2):
            entries.append((f"Cov{label}({names[i]}, {names[j]})", law.cov(i, j)))
        entries += [(f"E{label} {x}", m) for x, m in zip(names, law.mean, strict=True) if m != 0]
        return tuple(entries)


def _is_odd(factors: Factors, law: Covariance) -> bool:
    """(x) → (−x) preserves a centred law, so an odd integrand has mean zero."""
    parities = [f.parity for f in factors]
    if None in parities or any(m != 0 for m in law.mean):
        return False
    return sum(p for p in parities if p) % 2 == 1


def _lift(parts: list[tuple[Expr, Factors]], slopes: list[Expr]) -> list[tuple[Expr, Factors]]:
    """d/dt E[F | t] = Σ_k slope_k E[∂_k F | t]"""
    return [
        (coefficient * slope * c, _swap(fs, k, h))
        for coefficient, fs in parts
        for k, slope in enumerate(slopes)
        for c, h in differentiate(((sp.S.One, fs[k]),))
    ]


def _hermite(order: int, x: Expr, variance: Expr) -> Expr:
    """variance^(−order/2) He_order(x/√variance), so that ∂^m density = (−1)^m · this · density."""
    older, newer = sp.S.Zero, sp.S.One
    for k in range(order):
        older, newer = newer, (x * newer - k * older) / variance
    return newer


def _swap(factors: Factors, i: int, f: Factor) -> Factors:
    return (*factors[:i], f, *factors[i + 1 :])
