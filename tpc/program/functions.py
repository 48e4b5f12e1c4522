"""Nonlinearities as sympy functions of one real variable, with symbolic derivatives.

Kinked functions differentiate into each other: relu' = step, step' = DiracDelta, |x|' = sign.
At the kink step(0) = 0 and sign(0) = 0, so a zero latent has a zero gradient.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import sympy as sp
from sympy import DiracDelta, Expr, Function, Symbol

X = Symbol("x", real=True)


@cache
def argument(i: int) -> Symbol:
    """The i-th argument of a nonlinearity, u0, u1, …"""
    return Symbol(f"u{i}", real=True)


def _is_point(x: Expr) -> bool:
    """A number whose sign can be told: 3/2, √2, π"""
    return bool(x.is_number and x.is_comparable)


class relu(Function):
    """max(x, 0)"""

    nargs = 1

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return sp.Max(x, 0) if _is_point(x) else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return step(self.args[0])

    def _eval_is_extended_real(self) -> bool:
        return True


class step(Function):
    """1 where x > 0, else 0"""

    nargs = 1

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return sp.Integer(1 if x > 0 else 0) if _is_point(x) else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return DiracDelta(self.args[0])

    def _eval_is_extended_real(self) -> bool:
        return True


class sign(Function):
    """-1, 0 or 1"""

    nargs = 1

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return sp.sign(x) if _is_point(x) else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return 2 * DiracDelta(self.args[0])

    def _eval_is_extended_real(self) -> bool:
        return True


class absolute(Function):
    """|x|"""

    nargs = 1

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return sp.Abs(x) if _is_point(x) else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return sign(self.args[0])

    def _eval_is_extended_real(self) -> bool:
        return True


def leaky_relu(x: Expr, slope: Any = 0.01) -> Expr:
    """x where x > 0, else slope·x, as the linear combination slope·x + (1 - slope)·relu(x)."""
    slope = sp.nsimplify(slope, rational=True)
    return slope * x + (1 - slope) * relu(x)


def gelu(x: Expr) -> Expr:
    """x·Φ(x), the exact form"""
    return x * (1 + sp.erf(x / sp.sqrt(2))) / 2


def sigmoid(x: Expr) -> Expr:
    """1/(1 + e^-x), written by tanh so that it never overflows"""
    return (1 + sp.tanh(x / 2)) / 2


def silu(x: Expr) -> Expr:
    """x·sigmoid(x)"""
    return x * sigmoid(x)


class softplus(Function):
    """log(1 + e^x)"""

    nargs = 1

    @classmethod
    def eval(cls, x: Expr) -> Expr | None:
        return sp.log(1 + sp.exp(x)) if _is_point(x) else None

    def fdiff(self, argindex: int = 1) -> Expr:
        return sigmoid(self.args[0])

    def _eval_is_extended_real(self) -> bool:
        return True


def elu(x: Expr, alpha: Any = 1) -> Expr:
    """x where x > 0, else α(e^x - 1), as relu(x) + α(e^x - 1)·step(-x)"""
    alpha = sp.nsimplify(alpha, rational=True)
    return relu(x) + alpha * (sp.exp(x) - 1) * step(-x)


def softsign(x: Expr) -> Expr:
    """x/(1 + |x|)"""
    return x / (1 + absolute(x))


def partial(fn: Expr, u: Symbol) -> Expr:
    """∂fn/∂u, with the factors that u is not in kept outside: (φ(u)ψ(v))' = φ'(u)·ψ(v) also where φ' is a sum."""
    with_u = [f for f in sp.Mul.make_args(fn) if f.has(u)]
    others = [f for f in sp.Mul.make_args(fn) if not f.has(u)]
    return sp.Mul(*others, sp.diff(sp.Mul(*with_u), u))


# name -> (function of one argument, one-line meaning); the names `tpc kernel` and programs accept
NAMED: dict[str, Any] = {
    "identity": lambda x: x,
    "relu": relu,
    "step": step,
    "sign": sign,
    "abs": absolute,
    "leaky_relu": leaky_relu,
    "erf": sp.erf,
    "gelu": gelu,
    "sin": sp.sin,
    "cos": sp.cos,
    "exp": sp.exp,
    "tanh": sp.tanh,
    "sigmoid": sigmoid,
    "silu": silu,
    "softplus": softplus,
    "elu": elu,
    "softsign": softsign,
}
