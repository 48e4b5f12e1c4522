"""Formulas on one line of unicode: π, √, superscripts and arcsin, as a reader would write them."""

from __future__ import annotations

import re
from typing import Any

import sympy as sp
from sympy import Expr
from sympy.printing.str import StrPrinter

from tpc.program.functions import NAMED
from tpc.program.naming import unprimed

SUPERSCRIPT = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
GREEK = {"rho": "ρ", "sigma": "σ", "theta": "θ"}
CALLED = frozenset({*NAMED, "δ"})
FUNCTIONS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "DiracDelta": "δ", "absolute": "abs"}


LETTERS = "φδ"  # that functions are called


def is_function_name(text: str) -> bool:
    """Whether a symbol is the name of a function, such as relu, silu′ or φ2."""
    base = unprimed(text)[0]
    return base in CALLED or bool(re.fullmatch(rf"[{LETTERS}]\d*", base))


class _Unicode(StrPrinter):
    def _print_Pi(self, _expr: Any) -> str:
        return "π"

    def _print_Symbol(self, expr: Any) -> str:
        return GREEK.get(expr.name, str(expr.name))

    def _print_Pow(self, expr: Any, rational: bool = False) -> str:
        base, exponent = expr.base, expr.exp
        if exponent == sp.S.Half:
            return f"√({self._print(base)})" if not base.is_Atom else f"√{self._print(base)}"
        if exponent.is_Integer and exponent > 1:
            shown = self._print(base) if base.is_Atom or base.is_Function else f"({self._print(base)})"
            return shown + str(exponent).translate(SUPERSCRIPT)
        return str(super()._print_Pow(expr, rational)).replace("**", "^")

    def _print_Mul(self, expr: Any) -> str:
        return str(super()._print_Mul(expr)).replace("**", "^").replace("*", "·")

    def _print_Function(self, expr: Any) -> str:
        name = expr.func.__name__
        arguments = ", ".join(self._print(a) for a in expr.args)
        left, right = ("[", "]") if name[0] == "E" else ("(", ")")
        return f"{FUNCTIONS.get(name, name)}{left}{arguments}{right}"

    def _print_DiracDelta(self, expr: Any) -> str:
        order = int(expr.args[1]) if len(expr.args) > 1 else 0
        return f"δ{chr(39) * order}({self._print(expr.args[0])})"


def unicode_line(expr: Expr) -> str:
    """The expression on one line."""
    return str(_Unicode({"order": None}).doprint(expr))


def latex(expr: Expr) -> str:
    """The expression in LaTeX, with arcsin and arccos by name."""
    return str(sp.latex(expr, inv_trig_style="full"))
