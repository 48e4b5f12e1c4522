"""Quotients of closed forms, so that nothing overflows on the way to a value that does not.

With variances p and q, terms such as p·(pq − c²)/((p + 1)·√(1 + p + q + (pq − c²))) grow as p while their numerators
grow as p³ and what is under the root as p², beyond the range of single precision from p = 10¹³ on. Factors are
therefore multiplied and divided in turns, and roots taken without squaring what is large.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sympy as sp
from sympy import Expr

from tpc.gaussian import primitives as g
from tpc.lower.operations import Value
from tpc.lower.plan import volume

Emit = Callable[..., Value]


@dataclass(frozen=True)
class Factor:
    """A factor of a product, or a divisor, with its `growth`."""

    value: Value
    growth: float
    inverted: bool = False

    @property
    def change(self) -> float:
        """What it does to the growth of a product."""
        return -self.growth if self.inverted else self.growth


def growth(value: Expr) -> float:
    """The power of t as which a closed form grows where all variances and covariances grow as t."""
    if value.is_Symbol or isinstance(value, g.gap):
        return 1.0
    if value.is_Add:
        return max(growth(a) for a in value.args)
    if value.is_Mul:
        return sum(growth(a) for a in value.args)
    if value.is_Pow and value.exp.is_number:
        return growth(value.base) * float(value.exp)
    return -growth(value.args[0]) / 2 if isinstance(value, g.rsqrt) else 0.0


def root_of_sum(base: Expr) -> tuple[Expr, Expr] | None:
    """x and y with base = x + y² for a multiple y of a gap, where x cannot be negative."""
    if not base.is_Add:
        return None
    squares = [t for t in base.args if t.has(g.gap)]
    if len(squares) != 1 or any(t.could_extract_minus_sign() for t in base.args):
        return None
    number, square = squares[0].as_coeff_Mul()
    if not (square.is_Pow and square.exp == 2 and isinstance(square.base, g.gap)):
        return None
    return base - squares[0], sp.sqrt(number) * square.base


def multiplied_out(value: Expr) -> Expr:
    """A quotient with sums in its numerator that grow fast as a sum of quotients."""
    sums = [f for f in value.args if f.is_Add and growth(f) >= 2]
    if not sums:
        return value
    terms = [value / sp.Mul(*sums)]
    for s in sums:
        terms = [a * b for a in terms for b in s.args]
    return sp.Add(*terms)


def is_quotient(value: Expr) -> bool:
    """Whether a product of a closed form divides by what may be large."""
    inverse = (f for f in value.args if isinstance(f.as_base_exp()[0], g.rsqrt) or f.as_base_exp()[1].is_negative)
    return value.has(g.gap) and any(f.free_symbols for f in inverse)


def quotient(number: float, factors: Sequence[Factor], emit: Emit, constant: Callable[[float], Value]) -> Value:
    """number · factors, small arrays first, in an order that keeps what is there by then from growing or vanishing.

    Where either would do a division comes first: at |ρ| = 1 a root √(1 + p + q + (pq − c²)) grows less than elsewhere.
    """
    result = None if number == 1 else constant(number)
    grown = 0.0
    for size in sorted({volume(f.value.axes) for f in factors}):
        left = [f for f in factors if volume(f.value.axes) == size]
        while left:
            f = min(left, key=lambda f: (abs(grown + f.change), f.inverted == (result is None)))
            left.remove(f)
            grown += f.change
            if f.inverted:
                result = emit("reciprocal", f.value) if result is None else emit("divide", result, f.value)
            else:
                result = f.value if result is None else emit("multiply", result, f.value)
    return constant(number) if result is None else result
