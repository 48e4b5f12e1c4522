"""Parametrizations of finite networks: how initial values and learning rates scale with the width n.

In an abc-parametrization (Yang & Hu 2021, "Tensor Programs IV", §3) every weight is W = n^(-a) w with trained entries
w ~ N(0, σ² n^(-2b)) and learning rate η n^(-c). Rules are by the role of a weight, never by layer:

    role                          mup                  ntk               standard
                                  a     b     c        a     b    c      a    b     c
    input-like U, biases          −½    ½     0        0     0    0      0    0     1
    hidden matrix                  0    ½     0        ½     0    0      0    ½     1
    readout                        ½    ½     0        ½     0    0      0    ½     1
    finite weight (output bias)    0    0     0        0     0    0      0    0     1

These are the columns μP, NTP and SP (learning rate 1/width) of Table 1 there; with c = 0 SP is unstable. A finite
fan-in d divides σ² besides: an input-like matrix starts at N(0, σ²/d). σ is the program's `weight_std` or `std`. In
"ntk" σ and d are part of the multiplier, W = σ n^(-a) w/√d, so that the tangent kernel is that of the NTK limit; what
has σ = 0, as biases do unless told otherwise, stays zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from tpc.program import ir
from tpc.program.program import AnyWeight
from tpc.program.tensor import Weight

HALF = Fraction(1, 2)
ROLES = ("input", "hidden", "readout", "finite")


@dataclass(frozen=True)
class Exponents:
    """W = n^(-a) w, w ~ N(0, n^(-2b)), learning rate n^(-c)."""

    a: Fraction
    b: Fraction
    c: Fraction


def _exponents(*abc: tuple[float, float, float]) -> dict[str, Exponents]:
    return {role: Exponents(*map(Fraction, row)) for role, row in zip(ROLES, abc, strict=True)}


ABC: Mapping[str, Mapping[str, Exponents]] = {
    "mup": _exponents((-0.5, 0.5, 0), (0, 0.5, 0), (0.5, 0.5, 0), (0, 0, 0)),
    "ntk": _exponents((0, 0, 0), (0.5, 0, 0), (0.5, 0, 0), (0, 0, 0)),
    "standard": _exponents((0, 0, 1), (0, 0.5, 1), (0, 0.5, 1), (0, 0, 1)),
}
PARAMETRIZATIONS = (*ABC, "pi")  # "pi" learns as "mup" does, and starts as a π-limit does


def role(w: AnyWeight) -> str:
    """Which row of the table a weight has."""
    if isinstance(w, ir.MatrixWeight):
        return "hidden"
    return "finite" if isinstance(w, Weight) else w.role


@dataclass(frozen=True)
class Scales:
    """What a parametrization says of one weight at one width.

    Entries of W start at N(0, std²). A step of learning rate η is W ← W − η·rate·∂L/∂W, and the gradient of the trained
    entries has the norm `norm`·‖∂L/∂W‖, which is what clipping measures.
    """

    std: float
    rate: float
    norm: float


def exponents(parametrization: str, w: AnyWeight) -> Exponents:
    """The entry of the table for a weight."""
    return ABC["mup" if parametrization == "pi" else parametrization][role(w)]


def scales(parametrization: str, w: AnyWeight, width: int, fan_in: int = 1) -> Scales:
    """The scales of a weight; `fan_in` is that of an input-like matrix, the number of its features."""
    e = exponents(parametrization, w)
    sigma = float(w.std) / math.sqrt(fan_in)
    multiplier = width ** -float(e.a)
    if parametrization == "ntk":
        return Scales(sigma * width ** -float(e.a + e.b), (sigma * multiplier) ** 2, sigma * multiplier)
    return Scales(sigma * width ** -float(e.a + e.b), multiplier**2 * width ** -float(e.c), multiplier)


def stability(parametrization: str) -> tuple[Fraction, bool, bool]:
    """(s, stable, nontrivial) of a perceptron with a hidden matrix, as TP4 Theorems 3.2 to 3.4 say.

    Features move by n^(-s) in a step: s = 0 learns features, s > 0 is the kernel regime.
    """
    table = ABC[parametrization]
    first, hidden, last = (table[r] for r in ("input", "hidden", "readout"))
    start, c = last.a + last.b, last.c
    s = min(start, 2 * last.a + c) + c - 1 + min(2 * first.a + 1, 2 * hidden.a)
    stable_start = first.a + first.b == 0 and hidden.a + hidden.b == HALF and start >= HALF
    bounds = (2 * last.a + c, start + s)
    return s, stable_start and s >= 0 and min(bounds) >= 1, 1 in bounds
