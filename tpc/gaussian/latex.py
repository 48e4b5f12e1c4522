"""Formulas and names in LaTeX, all of it in ASCII and in commands of amsmath and amssymb."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from sympy import Expr
from sympy.printing.latex import LatexPrinter

from tpc.gaussian.notation import is_function_name
from tpc.program.naming import unprimed

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': "''",
    "`": r"\textasciigrave{}",
    **{c: f"\\{c}" for c in "#$%&_"},
}
_MATH = {
    "−": "-",
    "·": r"\cdot",
    "×": r"\times",
    "±": r"\pm",
    "≤": r"\le",
    "≥": r"\ge",
    "≠": r"\ne",
    "√": r"\surd",
    "∂": r"\partial",
    "∞": r"\infty",
    "→": r"\to",
    "←": r"\leftarrow",
    "⟨": r"\langle",
    "⟩": r"\rangle",
    "′": "'",
}
LETTERS = {"φ": r"\phi", "δ": r"\delta"}  # of functions
_ACCENTS = {
    "\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": ".",
    "\u0308": '"', "\u030a": "r", "\u030b": "H", "\u030c": "v", "\u0327": "c",
}  # fmt: skip
_OTHER = {"…": r"\dots{}", "’": "'", "–": "--", "ß": r"\ss{}", "ø": r"\o{}", "æ": r"\ae{}", "ı": r"\i{}"}


def escaped(text: str) -> str:
    """Text that LaTeX prints as it is, whatever its letters; one that has no command is told by its code point."""
    return "".join(map(_letter, text))


def _letter(c: str) -> str:
    if c in _SPECIAL:
        return _SPECIAL[c]
    if c in _MATH:
        return f"\\ensuremath{{{_MATH[c]}}}"
    if c in _OTHER:
        return _OTHER[c]
    if c.isascii():
        return c if c.isprintable() else " "
    if greek := _greek(c):
        return f"\\ensuremath{{{greek}}}"
    parts = unicodedata.normalize("NFKD", c)
    base, marks = parts[0], parts[1:]
    if base.isascii() and base.isprintable() and base not in _SPECIAL and all(m in _ACCENTS for m in marks):
        for m in marks:
            base = f"\\{_ACCENTS[m]}{{{base}}}"
        return base
    return rf"\texttt{{U+{ord(c):04X}}}"


def _greek(c: str) -> str:
    """The command of a Greek letter that does not look like a Latin one."""
    match = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (FINAL )?(\w+)", unicodedata.name(c, ""))
    if match is None or c not in "αβγδεζηθικλμνξπρςστυφχψωΓΔΘΛΞΠΣΥΦΨΩ":
        return ""
    name = match[3].lower().replace("lamda", "lambda")
    return f"\\{'var' if match[2] else ''}{name if match[1] == 'SMALL' else name.capitalize()}"


def upright(text: str) -> str:
    """A word within a formula."""
    return rf"\text{{{escaped(text)}}}"


def name(text: str) -> str:
    """An identifier: one letter is italic, a word upright; `a1` is a with an index, `layer.A` is A of a layer."""
    layer, _, part = text.rpartition(".")
    match = re.fullmatch(r"(\w)(\d*)", part, re.ASCII)
    letter, index = (match[1], match[2]) if match else (upright(part), "")
    below = ",".join(filter(None, (index, upright(layer) if layer else "")))
    return f"{letter}_{{{below}}}" if below else letter


def function_name(text: str) -> str:
    """The name of a function, with its primes: \\operatorname{silu}''."""
    base, order = unprimed(text)
    letter, digits = base[:1], base[1:]
    shown = LETTERS.get(letter, rf"\operatorname{{{base}}}")
    if letter in LETTERS and digits:
        shown += f"_{{{digits}}}"
    return shown + ("'" * order if order < 4 else f"^{{({order})}}")


def fenced(inner: str, left: str = "(", right: str = ")") -> str:
    """Something in brackets that grow with it."""
    return rf"\left{left} {inner} \right{right}"


class _Latex(LatexPrinter):
    """sympy's, with expectations and calls as a reader writes them."""

    def __init__(self, names: dict[Expr, str]) -> None:
        super().__init__({"inv_trig_style": "full", "symbol_names": names})

    def _as_ordered_terms(self, expr: Any, order: Any = None) -> list[Any]:
        """A minus sign in front goes to the end."""
        terms = list(super()._as_ordered_terms(expr, order))
        return sorted(terms, key=lambda t: t is terms[0] and t.could_extract_minus_sign())

    def _print_Function(self, expr: Any, exp: Any = None) -> str:
        called = type(expr).__name__
        if unprimed(called)[1] or called in LETTERS:
            return self._applied(expr, exp)
        expectation = re.fullmatch(r"E(\d*)", called)
        if expectation is None:
            return str(super()._print_Function(expr, exp))
        law = f"_{{{expectation[1]}}}" if expectation[1] else ""
        arguments = ", ".join(str(self._print(a)) for a in expr.args)
        power = f"^{{{exp}}}" if exp is not None else ""
        return rf"\mathbb{{E}}{law}{fenced(arguments, '[', ']')}{power}"

    def _applied(self, expr: Any, exp: Any) -> str:
        """A function with primes."""
        arguments = ", ".join(str(self._print(a)) for a in expr.args)
        power = f"^{{{exp}}}" if exp is not None else ""
        return f"{function_name(type(expr).__name__)}{fenced(arguments)}{power}"

    def _print_Symbol(self, expr: Any, style: str = "plain") -> str:
        if expr not in self._settings["symbol_names"] and is_function_name(expr.name):
            return function_name(expr.name)
        return str(super()._print_Symbol(expr, style))

    def _print_absolute(self, expr: Any, exp: Any = None) -> str:
        return str(self._print_Abs(expr, exp))

    def emptyPrinter(self, expr: Any) -> str:  # sympy's name
        return upright(str(expr))


def expression(expr: Expr, names: dict[Expr, str] | None = None) -> str:
    """An expression; `names` gives those of some symbols."""
    return str(_Latex(names or {}).doprint(expr))
