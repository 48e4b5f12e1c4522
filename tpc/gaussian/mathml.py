"""Formulas as presentation MathML, which browsers draw without help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

import sympy as sp
from sympy import Expr
from sympy.printing.printer import Printer

from tpc.gaussian.notation import FUNCTIONS, GREEK, is_function_name
from tpc.program.naming import primed, unprimed

NAMESPACE = "http://www.w3.org/1998/Math/MathML"
_JOIN = '<mo form="infix">{}</mo>'  # with space on both sides, though it comes first in its piece
_ORDER = {"<=": "≤", ">=": "≥", "<": "<", ">": ">", "==": "=", "!=": "≠"}
_HIGH = ("<mfrac", "<msqrt", "<mtable", "<munder", "<msup")
LONG = 70  # characters of a product that is broken
_ADD, _MUL, _POW = 1, 2, 3  # how tightly an operation binds


def row(*parts: str) -> str:
    """Several elements side by side."""
    return parts[0] if len(parts) == 1 else f"<mrow>{''.join(parts)}</mrow>"


def sign(text: str) -> str:
    """An operator."""
    return f"<mo>{escape(text)}</mo>"


def name(text: str) -> str:
    """An identifier: one letter is italic, a word upright; `a1` is a with an index, `layer.A` is A of a layer."""
    layer, _, part = text.rpartition(".")
    letter = part.rstrip("0123456789")
    digits = part[len(letter) :]
    if layer:
        return f"<msub>{name(part)}<mtext>{escape(layer)}</mtext></msub>"
    if digits and len(letter) == 1:
        return f"<msub>{name(letter)}<mn>{digits}</mn></msub>"
    return f"<mi>{escape(GREEK.get(text, text))}</mi>"


def function_name(text: str) -> str:
    """The name of a function with its primes, which stand too high in some fonts if they are superscripts."""
    base, order = unprimed(text)
    letter, digits = base[:1], base[1:]
    if digits.isdecimal():
        return f"<msub><mi>{letter}{primed('', order)}</mi><mn>{digits}</mn></msub>"
    return f"<mi>{escape(text)}</mi>"


def fenced(inner: str, left: str = "(", right: str = ")") -> str:
    """Something in brackets, which grow where it is high: those that may grow stand further apart in some fonts."""
    grows = ' symmetric="false"' if any(tag in inner for tag in _HIGH) else ' stretchy="false"'
    left, right = (f"<mo{grows}>{escape(bracket)}</mo>" for bracket in (left, right))
    return row(left, inner, right)


def listed(parts: list[str]) -> str:
    """Elements with commas between them."""
    joined: list[str] = []
    for part in parts:
        joined += [sign(","), part] if joined else [part]
    return row(*joined) if joined else "<mrow></mrow>"


def math(content: str, block: bool = False, label: str = "") -> str:
    """A whole formula. `label` is what a reader without MathML hears or searches."""
    display = ' display="block"' if block else ""
    told = f' alttext="{escape(label, {chr(34): "&quot;"})}"' if label else ""
    return f'<math xmlns="{NAMESPACE}"{display}{told}>{content}</math>'


def broken(pieces: Sequence[str], label: str = "") -> str:
    """A formula whose line may end after each piece, as browsers break none on their own."""
    shown = " ".join(
        math(f'<mstyle displaystyle="true">{piece}</mstyle>', label=label if k == 0 else "")
        for k, piece in enumerate(pieces)
    )
    return f'<span class="formula">{shown}</span>'


def summands(expr: Expr) -> list[str]:
    """The pieces of a sum, or of a number times a long one: a term each, with its sign."""
    if isinstance(expr, sp.Mul) and len(str(expr)) > LONG:
        number, rest = _split_sum(expr)
        if rest is not None:
            first, *others = summands(rest)
            return [row(expression(number), sign("("), first), *others[:-1], row(others[-1], sign(")"))]
    if not isinstance(expr, sp.Add):
        return [expression(expr)]
    terms = expr.as_ordered_terms()
    pieces: list[str] = []
    for term in sorted(terms, key=lambda t: t is terms[0] and t.could_extract_minus_sign()):
        minus = term.could_extract_minus_sign()
        shown = _MathML({}).within(-term if minus else term, _ADD + (1 if minus else 0))
        joined = _JOIN.format("−" if minus else "+")
        pieces.append(row(*([joined] if pieces else [sign("−")] if minus else []), shown))
    return pieces


def _split_sum(expr: sp.Mul) -> tuple[Expr, Expr | None]:
    """A product as what stands before its only sum, and the sum; None where it has no single one."""
    above, below = sp.fraction(expr)
    sums = [f for f in sp.Mul.make_args(above) if isinstance(f, sp.Add)]
    rest = sp.Mul(*(f for f in sp.Mul.make_args(above) if f not in sums)) / below
    return (rest, sums[0]) if len(sums) == 1 and rest != 1 and rest != -1 else (expr, None)


class _MathML(Printer):
    printmethod = "_mathml_of_tpc"

    def __init__(self, names: dict[Expr, str]) -> None:
        super().__init__()
        self._names = names

    def within(self, expr: Any, tightness: int) -> str:
        """An operand, in brackets where it binds less than `tightness`."""
        made = str(self._print(expr))
        return fenced(made) if _tightness(expr) < tightness else made

    def _print_Symbol(self, expr: Any) -> str:
        if expr in self._names:
            return self._names[expr]
        return function_name(expr.name) if is_function_name(expr.name) else name(expr.name)

    def _print_Integer(self, expr: Any) -> str:
        number = f"<mn>{abs(int(expr))}</mn>"
        return row(sign("−"), number) if expr < 0 else number

    def _print_Rational(self, expr: Any) -> str:
        made = f"<mfrac><mn>{abs(expr.p)}</mn><mn>{expr.q}</mn></mfrac>"
        return row(sign("−"), made) if expr < 0 else made

    def _print_Float(self, expr: Any) -> str:
        number = f"<mn>{abs(float(expr)):g}</mn>"
        return row(sign("−"), number) if expr < 0 else number

    def _print_Pi(self, _expr: Any) -> str:
        return "<mi>π</mi>"

    def _print_Exp1(self, _expr: Any) -> str:
        return "<mi>e</mi>"

    def _print_Infinity(self, _expr: Any) -> str:
        return "<mi>∞</mi>"

    def _print_ImaginaryUnit(self, _expr: Any) -> str:
        return "<mi>i</mi>"

    def _print_Add(self, expr: Any) -> str:
        parts: list[str] = []
        terms = expr.as_ordered_terms()
        for term in sorted(terms, key=lambda t: t is terms[0] and t.could_extract_minus_sign()):
            minus = term.could_extract_minus_sign()
            shown = self.within(-term if minus else term, _ADD + (1 if minus else 0))
            parts += [sign("−")] if minus else [sign("+")] if parts else []
            parts.append(shown)
        return row(*parts)

    def _print_Mul(self, expr: Any) -> str:
        if expr.could_extract_minus_sign():
            return row(sign("−"), self.within(-expr, _MUL))
        above, below = sp.fraction(expr)
        if below != 1:
            return f"<mfrac>{self._product(above)}{self._product(below)}</mfrac>"
        return self._product(expr)

    def _product(self, expr: Any) -> str:
        factors = expr.as_ordered_factors() if isinstance(expr, sp.Mul) else [expr]
        if len(factors) == 1:
            return row(str(self._print(factors[0])))
        parts: list[str] = []
        for f in factors:
            shown = self.within(f, _MUL)
            parts += [sign("·" if f.is_Number or f.is_Function else "\u2062"), shown] if parts else [shown]
        return row(*parts)

    def _print_Pow(self, expr: Any) -> str:
        base, exponent = expr.base, expr.exp
        if exponent.is_Rational and exponent < 0:
            return f"<mfrac><mn>1</mn>{self._print(base**-exponent)}</mfrac>"
        if exponent == sp.S.Half:
            return f"<msqrt>{self._print(base)}</msqrt>"
        if exponent.is_Rational and exponent.q == 2:
            return self._raised(sp.sqrt(base), str(self._print(exponent.p * sp.S.One)))
        return self._raised(base, str(self._print(exponent)))

    def _raised(self, base: Any, exponent: str) -> str:
        return f"<msup>{row(self.within(base, _POW + 1))}{row(exponent)}</msup>"

    def _print_exp(self, expr: Any) -> str:
        return f"<msup><mi>e</mi>{row(str(self._print(expr.args[0])))}</msup>"

    def _print_Abs(self, expr: Any) -> str:
        return fenced(str(self._print(expr.args[0])), "|", "|")

    def _print_DiracDelta(self, expr: Any) -> str:
        order = int(expr.args[1]) if len(expr.args) > 1 else 0
        delta = f"<msup><mi>δ</mi>{sign(chr(0x2032) * order)}</msup>" if order else "<mi>δ</mi>"
        return row(delta, fenced(str(self._print(expr.args[0]))))

    def _print_Function(self, expr: Any) -> str:
        called = expr.func.__name__
        arguments = listed([str(self._print(a)) for a in expr.args])
        if (called[0] == "E" and called[1:].isdecimal()) or called == "E":
            left, right = "[", "]"
            shown = "<mi>𝔼</mi>" if called == "E" else f"<msub><mi>𝔼</mi><mn>{called[1:]}</mn></msub>"
        else:
            left, right = "(", ")"
            shown = function_name(FUNCTIONS.get(called, called))
        return row(shown, sign("\u2061"), fenced(arguments, left, right))

    def _print_Max(self, expr: Any) -> str:
        return self._print_Function(expr)

    _print_Min = _print_Max

    def _print_Relational(self, expr: Any) -> str:
        return row(str(self._print(expr.lhs)), sign(_ORDER[expr.rel_op]), str(self._print(expr.rhs)))

    def _print_And(self, expr: Any) -> str:
        parts: list[str] = []
        for one in expr.args:
            parts += [sign("∧"), self._print(one)] if parts else [self._print(one)]
        return row(*parts)

    def _print_Piecewise(self, expr: Any) -> str:
        rows = "".join(
            f"<mtr><mtd>{self._print(value)}</mtd><mtd>"
            + ("<mtext>otherwise</mtext>" if when == sp.true else row("<mtext>if </mtext>", self._print(when)))
            + "</mtd></mtr>"
            for value, when in expr.args
        )
        return row(sign("{"), f'<mtable columnalign="left">{rows}</mtable>')

    def emptyPrinter(self, expr: Any) -> str:  # sympy's name
        if isinstance(expr, sp.Basic) and expr.args:
            return row(f"<mi>{escape(type(expr).__name__)}</mi>", fenced(listed([self._print(a) for a in expr.args])))
        return f"<mtext>{escape(str(expr))}</mtext>"


def _tightness(expr: Any) -> int:
    if isinstance(expr, sp.Add) or expr.is_Relational:
        return _ADD
    if expr.is_Number and (expr < 0 or not expr.is_Integer):
        return _ADD if expr < 0 else _MUL
    if isinstance(expr, sp.Mul):
        return _ADD if expr.could_extract_minus_sign() else _MUL
    if isinstance(expr, sp.Piecewise):
        return _ADD
    if isinstance(expr, sp.Pow) and expr.exp.is_Rational and expr.exp < 0:
        return _MUL
    if isinstance(expr, sp.Pow | sp.exp) and not (isinstance(expr, sp.Pow) and expr.exp == sp.S.Half):
        return _POW
    return _POW + 1


def expression(expr: Expr, names: dict[Expr, str] | None = None) -> str:
    """The elements of an expression; `names` gives those of some symbols."""
    return str(_MathML(names or {}).doprint(expr))
