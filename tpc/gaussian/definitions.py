"""What the functions of a kernel are, and the first and last line of its derivation."""

from __future__ import annotations

from dataclasses import dataclass

import sympy as sp
from sympy import Expr

from tpc.gaussian.factors import decompose
from tpc.gaussian.kernel import Kernel
from tpc.gaussian.names import FunctionNames
from tpc.program.functions import NAMED, X

MEANINGS = {
    "step": "1 where x > 0, else 0",
    "sign": "−1, 0 or 1, as x",
    "δ": "the derivative of step(x)",
    "erf": "2/√π ∫₀ˣ exp(−t²) dt",
    **{name: str(NAMED[name].__doc__) for name in ("relu", "softplus")},
    "abs": "|x|",
}


@dataclass(frozen=True)
class Definition:
    """name(x) = meaning, in words, = value, as the derivation uses it; one of the two may be missing."""

    name: str
    meaning: str
    value: Expr | None


def definitions(v: Kernel, names: FunctionNames | None = None) -> tuple[Definition, ...]:
    """What φ and ψ are, where their names do not say it."""
    known = names or FunctionNames((v.phi, v.psi))
    found = {}
    for phi in (v.phi, v.psi):
        shown = known.shown(phi)
        if not shown.is_Symbol or shown == X:
            continue
        value = normal_form(phi) if isinstance(phi, sp.Function) else phi
        meaning = MEANINGS.get(shown.name, "")
        if meaning or value != phi or not isinstance(phi, sp.Function):
            found[shown.name] = Definition(shown.name, meaning, None if value == phi and meaning else value)
    return tuple(found.values())


def normal_form(phi: Expr) -> Expr:
    """φ as the sum of products that rules are applied to, such as x·step(x) for relu."""
    terms = decompose(phi)
    return phi if terms is None else sp.Add(*(number * f.to_expr(X) for number, f in terms))
