"""The rules that turn E[f_1(x_1) … f_n(x_n)] of normal-form factors into a closed form.

Every rule either removes something (a δ, an exponential, a power of x) or is terminal (a characteristic
function, an orthant probability), so the derivation ends. Where no rule applies the value is None.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import comb

import sympy as sp
from sympy import Expr

from tpc.gaussian.covariance import Covariance
from tpc.gaussian.factors import UNIT, Factor, differentiate
from tpc.gaussian.terminal import orthant, thresholds, wave_and_sign, waves

E = sp.Function("E")  # expectation under the law of (u, v)
E_TILTED = sp.Function("E'")  # under the law that an exponential factor has tilted or shifted
E_GIVEN = sp.Function("E|")  # under the law conditioned on a site being 0

Factors = tuple[Factor, ...]
Names = tuple[Expr, ...]


@dataclass(frozen=True)
class Step:
    """One fired rule: left = right, where right may contain further expectations."""

    rule: str
    left: Expr
    right: Expr

    @property
    def text(self) -> str:
        """The equation in plain unicode."""
        return f"{sp.sstr(self.left)} = {sp.sstr(self.right)}"


@dataclass
class Derivation:
    """Evaluates moments and records the rules that fired, outermost first."""

    steps: list[Step] = field(default_factory=list)
    memo: dict[tuple[Factors, Covariance], Expr | None] = field(default_factory=dict)

    def moment(self, factors: Factors, law: Covariance, names: Names) -> Expr | None:
        """E Π f_i(x_i) under the law, or None when no rule applies."""
        key = (factors, law)
        if key not in self.memo:
            before = len(self.steps)
            self.memo[key] = self._moment(factors, law, names)
            if len(self.steps) > before:  # outermost first: a step precedes those it called for
                self.steps.insert(before, self.steps.pop())
        return self.memo[key]

    def _moment(self, factors: Factors, law: Covariance, names: Names) -> Expr | None:
        if all(f == UNIT for f in factors):
            return sp.S.One
        if _is_odd(factors, law):
            return self._fired("parity", factors, names, sp.S.Zero, sp.S.Zero)
        for i, f in enumerate(factors):
            if f.delta >= 0:
                return self._condition(i, factors, law, names)
        for i, f in enumerate(factors):
            if f.quad != 0:
                return self._change_law("Gaussian tilt", *law.tilt(i, f.quad), i, factors, names)
        for i, f in enumerate(factors):
            if f.lin != 0:
                return self._change_law("exponential shift", *law.shift(i, f.lin), i, factors, names)
        if any(f.power for f in factors):
            return self._stein(factors, law, names)
        return self._terminal(factors, law, names)

    def _change_law(
        self, rule: str, factor: Expr, law: Covariance, i: int, factors: Factors, names: Names
    ) -> Expr | None:
        """E[e^{−a x²/2} F] or E[e^{b x} F] = factor · E'[F]"""
        lighter = {"quad": sp.S.Zero} if rule == "Gaussian tilt" else {"lin": sp.S.Zero}
        rest = _swap(factors, i, replace(factors[i], **lighter))
        shown = factor * _expectation(rest, names, E_TILTED)
        inner = self.moment(rest, law, names)
        return self._fired(rule, factors, names, shown, None if inner is None else factor * inner)

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
                shown += weight * coefficient * _expectation(partner, rest_names, E_GIVEN)
            if m < order:
                lifted = _lift(lifted, slopes)
        rule = "conditioning on δ" if order == 0 else "Price: derivatives of δ move to the partner"
        return self._fired(rule, factors, names, shown, total)

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
        shown = sp.Add(*(c * _expectation(fs, names) for c, fs in parts))
        return self._fired(rule, factors, names, shown, total)

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
        return self._fired(rule, factors, names, value, value)

    def _fired(
        self, rule: str, factors: Factors, names: Names, shown: Expr | None, value: Expr | None
    ) -> Expr | None:
        if value is not None:
            self.steps.append(Step(rule, _expectation(factors, names), shown))
        return value


def _expectation(factors: Factors, names: Names, under: sp.FunctionClass = E) -> Expr:
    integrand = sp.Mul(*(f.to_expr(x) for f, x in zip(factors, names, strict=True)))
    return integrand if integrand == 1 else under(integrand)


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
