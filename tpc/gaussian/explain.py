"""What `tpc kernel PHI [PSI]` says: formula, derivation, conditions, Mehler series and a value."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sympy as sp
from sympy import Expr
from sympy.core.function import AppliedUndef

from tpc.gaussian.definitions import definitions
from tpc.gaussian.kernel import Kernel, kernel
from tpc.gaussian.moments import Step
from tpc.gaussian.names import KernelNames
from tpc.gaussian.notation import latex, unicode_line
from tpc.gaussian.primitives import textbook
from tpc.gaussian.symbols import RHO
from tpc.program import naming

if TYPE_CHECKING:
    from tpc.gaussian.series import MehlerSeries

POINT = (1.0, 1.0, 0.5)


@dataclass(frozen=True)
class Explanation:
    """A kernel for reading (`text`) and for programs (`data`, of JSON types only)."""

    kernel: Kernel
    text: str
    data: dict[str, Any]


def explain(phi: Expr, psi: Expr | None = None, terms: int = 6, at: tuple[float, float, float] = POINT) -> Explanation:
    """Derive V[φ,ψ] and describe it, with its Mehler series to ρ^terms and its value at (p, q, c).

    Raises `GaussianError` when the kernel does not exist or the point lies outside c² ≤ pq.
    """
    found = kernel(phi, psi)
    value = found.at(*at)
    series = found.series(terms)
    data = {
        "phi": sp.sstr(found.phi),
        "psi": sp.sstr(found.psi),
        "closed_form": found.value is not None,
        "formula": None if found.plain is None else sp.sstr(found.plain),
        "stable_formula": None if found.value is None else sp.sstr(found.value),
        "latex": None if found.plain is None else latex(found.plain),
        "degrees": None if found.degrees is None else list(found.degrees),
        "kappa": None if found.kappa is None else sp.sstr(found.kappa),
        "rules": [{"rule": s.rule, "equation": equation(s)} for s in found.rules],
        "conditions": list(found.conditions),
        "series": _series_data(series, at),
        "at": {"p": at[0], "q": at[1], "c": at[2], "value": value},
    }
    return Explanation(found, _text(found, series, data), data)


def named_step(step: Step) -> Step:
    """The step with functions within expectations by their names."""

    def by_name(e: Expr) -> bool:
        return isinstance(e, AppliedUndef) and re.fullmatch(r"E\d*", e.func.__name__) is not None

    left, right = (e.replace(by_name, lambda f: f.func(naming.named(f.args[0]))) for e in (step.left, step.right))
    return Step(step.rule, left, right, step.law)


def equation(step: Step) -> str:
    """A derivation step in unicode, in textbook functions."""
    step = named_step(step)
    shown = f"{unicode_line(step.left)} = {unicode_line(textbook(step.right))}"
    law = ", ".join(f"{name} = {unicode_line(sp.factor(textbook(value)))}" for name, value in step.law)
    return f"{shown}, where {law}" if law else shown


def _series_data(series: MehlerSeries, at: tuple[float, float, float]) -> dict[str, Any]:
    numbers = series.numbers(at[0], at[1])
    bound = series.remainder(*at)
    return {
        "terms": series.terms,
        "formula": None if series.value is None else sp.sstr(series.value),
        "left": None if series.left is None else [sp.sstr(a) for a in series.left],
        "right": None if series.right is None else [sp.sstr(b) for b in series.right],
        "coefficients": [a * b for a, b in numbers],
        "partial_sum": series(*at),
        "remainder_bound": bound if math.isfinite(bound) else None,
    }


def defined(v: Kernel, names: KernelNames) -> list[str]:
    """What φ and ψ are: "relu(x) = max(x, 0) = x·step(x)"."""
    return [
        " = ".join([f"{d.name}(x)", *filter(None, [d.meaning]), *([] if d.value is None else [unicode_line(d.value)])])
        for d in definitions(v, names)
    ]


def hence(v: Kernel, names: KernelNames) -> str:
    """The last line of a derivation."""
    value = "a table, as there is no closed form" if v.plain is None else unicode_line(v.plain)
    return f"hence {names.kernel(v.phi, v.psi)}(p, q, c) = {value}"


def _text(found: Kernel, series: MehlerSeries, data: dict[str, Any]) -> str:
    names = KernelNames([(found.phi, found.psi)])
    called = [unicode_line(names.shown(f)) for f in (found.phi, found.psi)]
    lines = [f"V[{called[0]}, {called[1]}](p, q, c) = E φ(u)ψ(v),  φ = {called[0]},  ψ = {called[1]}", ""]
    if found.plain is None:
        accuracy = "" if found.numeric is None else found.numeric.promise
        lines.append(
            "  No closed form: evaluated by quadrature here, and in compiled programs from Chebyshev tables\n"
            f"  in the angle and both variances, {accuracy}."
        )
    else:
        lines += ["  V = " + unicode_line(found.plain), "", "LaTeX:  " + latex(found.plain)]
        if found.degrees is not None and found.kappa is not None:
            a, b = found.degrees
            lines += ["", f"Homogeneous: V = {_power('p', a)}{_power('q', b)}κ(ρ),  ρ = c/√(pq)"]
            lines.append("  κ(ρ) = " + unicode_line(textbook(found.kappa)))
    if found.rules:
        lines += ["", "Derivation:", *(f"  {line}" for line in defined(found, names))]
        lines += [f"  {k}. {s.rule}: {equation(s)}" for k, s in enumerate(found.rules, 1)]
        lines.append(f"  {hence(found, names)}")
    elif told := defined(found, names):
        lines += ["", "Where:", *(f"  {line}" for line in told)]
    lines += ["", "Conditions:", *(f"  {c}" for c in found.conditions)]
    lines += ["", *_series_text(series, data["series"], data["at"])]
    point = data["at"]
    place = ", ".join(f"{name} = {point[name]:g}" for name in "pqc")
    shown = f"{point['value']:.15g}" if math.isfinite(point["value"]) else "∞ (larger than the largest double, 1.8e308)"
    lines += ["", f"At {place}:  V = {shown}"]
    return "\n".join(lines)


def _power(name: str, degree: int) -> str:
    if degree == 0:
        return ""
    exponent = sp.Rational(degree, 2)
    return unicode_line(sp.Symbol(name) ** exponent) + "·"


def _series_text(series: MehlerSeries, data: dict[str, Any], at: dict[str, Any]) -> list[str]:
    lines = []
    if series.left is not None and series.right is not None:
        if series.kernel.degrees is not None:
            lines.append(f"Mehler series: κ(ρ) = {_polynomial(series)} + O(ρ^{series.terms + 1})")
        else:
            lines.append("Mehler series: V = Σ_k a_k(√p) b_k(√q) ρ^k,  s the standard deviation")
            lines += [f"  a_{k}(s) = {unicode_line(a)}" for k, a in enumerate(series.left) if a != 0]
            if series.right != series.left:
                lines += [f"  b_{k}(s) = {unicode_line(b)}" for k, b in enumerate(series.right) if b != 0]
    else:
        numbers = ", ".join(f"{x:.6g}" for x in data["coefficients"])
        lines.append(f"Mehler series: a_k b_k for k = 0 … {series.terms} at this p, q: {numbers}")
    bound = data["remainder_bound"]
    shown = "no bound at this point" if bound is None else f"remainder at most {bound:.2g}"
    lines.append(f"  partial sum at c = {at['c']:g}: {data['partial_sum']:.12g}, {shown}")
    return lines


def _polynomial(series: MehlerSeries) -> str:
    """The series of κ in increasing powers."""
    value = sp.S.Zero if series.value is None else series.value
    terms = [value.coeff(RHO, k) * RHO**k for k in range(series.terms + 1)]
    text = " + ".join(unicode_line(t) for t in terms if t != 0)
    return text.replace("+ -", "− ") or "0"
