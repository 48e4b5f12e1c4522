"""Nonlinearities as text: a small expression language read by Python's `ast` with a whitelist, never by eval.

`parse_nonlinearity("x*erf(x) + relu(x)")` gives a function of X; `parse_expression` reads back what sympy's
`str` prints, in any named symbols.
"""

from __future__ import annotations

import ast
import difflib
import math
import re
from collections.abc import Callable, Mapping

import sympy as sp
from sympy import DiracDelta, Expr, Symbol

from tpc.errors import UsageError
from tpc.program.functions import NAMED, X, absolute, relu, step
from tpc.program.naming import spell_primes, unprimed
from tpc.program.numbers import check_size

MAX_LENGTH = 2000
MAX_EXPONENT = 64
MAX_ORDER = 8  # of derivatives
_SPELLED = "_{1}_{0}"  # a primed name as an identifier

SELU_SCALE = sp.Rational("1.0507009873554805")  # Klambauer et al. 2017, arXiv:1706.02515
SELU_ALPHA = sp.Rational("1.6732632423543772")

CONSTANTS: dict[str, Expr] = {"pi": sp.pi, "E": sp.E}


def _hermite(k: Expr, x: Expr) -> Expr:
    """Probabilists' Hermite polynomial He_k"""
    if not (k.is_Integer and 0 <= k <= MAX_EXPONENT):
        raise UsageError(f"He(k, x) expects an integer k from 0 to {MAX_EXPONENT}, got k = {k}")
    older, newer = sp.S.Zero, sp.S.One
    for i in range(int(k)):
        older, newer = newer, sp.expand(x * newer - i * older)
    return newer


# nonlinearities of other libraries that have no kernel here -> a smooth one that is close
KINKED_ELSEWHERE = {
    "relu6": "3*(1 + tanh(x - 3))", "hardtanh": "erf(x)", "hard_tanh": "erf(x)", "hardsigmoid": "sigmoid(x)",
    "hard_sigmoid": "sigmoid(x)", "hardswish": "silu(x)", "hard_swish": "silu(x)", "hardsilu": "silu(x)",
    "hardshrink": "x**3/(1 + x**2)", "softshrink": "x**3/(1 + x**2)", "threshold": "softplus(x)",
}  # fmt: skip

# name -> (function, least and most number of arguments)
FUNCTIONS: dict[str, tuple[Callable[..., Expr], int, int]] = {
    **{name: (function, 1, 1) for name, function in NAMED.items()},
    "leaky_relu": (NAMED["leaky_relu"], 1, 2),
    "elu": (NAMED["elu"], 1, 2),
    "absolute": (absolute, 1, 1),
    "Abs": (sp.Abs, 1, 1),
    "DiracDelta": (DiracDelta, 1, 2),
    "δ": (DiracDelta, 1, 2),
    "Heaviside": (step, 1, 1),
    "Phi": (lambda x: (1 + sp.erf(x / sp.sqrt(2))) / 2, 1, 1),
    "selu": (lambda x: SELU_SCALE * NAMED["elu"](x, SELU_ALPHA), 1, 1),
    "mish": (lambda x: x * sp.tanh(NAMED["softplus"](x)), 1, 1),
    "He": (_hermite, 2, 2),
    "swish": (NAMED["silu"], 1, 1),
    "logistic": (NAMED["sigmoid"], 1, 1),
    "quick_gelu": (lambda x: x * NAMED["sigmoid"](sp.Rational("1.702") * x), 1, 1),
    "logsigmoid": (lambda x: -NAMED["softplus"](-x), 1, 1),
    "celu": (lambda x, alpha=1: NAMED["relu"](x) + alpha * (sp.exp(x / alpha) - 1) * step(-x), 1, 2),
    "lrelu": (NAMED["leaky_relu"], 1, 2),
    "erfc": (sp.erfc, 1, 1),
    "log": (sp.log, 1, 1),
    "sqrt": (sp.sqrt, 1, 1),
    "sinh": (sp.sinh, 1, 1),
    "cosh": (sp.cosh, 1, 1),
    "atan": (sp.atan, 1, 1),
    "arctan": (sp.atan, 1, 1),
    "asinh": (sp.asinh, 1, 1),
    "arcsinh": (sp.asinh, 1, 1),
    "Max": (sp.Max, 1, 9),
    "Min": (sp.Min, 1, 9),
    "max": (sp.Max, 1, 9),
    "min": (sp.Min, 1, 9),
}


def parse_expression(text: str, symbols: Mapping[str, Symbol]) -> Expr:
    """The expression a text stands for, in the given symbols; decimals stay floats.

    Raises `UsageError` for unknown names, wrong argument counts and anything that is not arithmetic.
    """
    return _Reader(text, symbols, exact=False).read()


def parse_nonlinearity(text: str) -> Expr:
    """The function of X that a name ("relu", "silu′") or an expression in x ("x*tanh(x)") stands for.

    A prime ′ or ' after the name of a function is a derivative. Decimals are read exactly (0.2 is 1/5). Raises
    `UsageError` when the text is no function of one variable.
    """
    name = text.strip()
    base, order = unprimed(name)
    if base in FUNCTIONS and FUNCTIONS[base][1] == 1 and order <= MAX_ORDER:
        return sp.diff(to_kinks(FUNCTIONS[base][0](X)), X, order)
    variables = _free_names(name)
    if len(variables) > 1:
        raise UsageError(
            f"expected a nonlinearity of one variable x, got {text!r} with {_listed(variables)}."
            f"\n  Fix: write it in x alone."
        )
    symbols = {"x": X, **dict.fromkeys((v for v in variables if len(v) == 1), X)}
    return to_kinks(_Reader(name, symbols, exact=True).read())


def checked_nonlinearity(phi: Expr) -> Expr:
    """An expression of sympy as a nonlinearity; `UsageError` for numbers no float computes with."""
    try:
        for number in phi.atoms(sp.Number):
            check_size(number)
    except ValueError as error:
        raise UsageError(f"{error} in a nonlinearity") from None
    return to_kinks(phi)


def to_kinks(phi: Expr) -> Expr:
    """Write sympy's Max, Min, Abs, sign and Heaviside with relu, absolute and step, which differentiate."""
    phi = phi.replace(sp.Max, _maximum)
    phi = phi.replace(sp.Min, lambda *args: -_maximum(*(-a for a in args)))
    phi = phi.replace(sp.Abs, lambda x: absolute(x))
    phi = phi.replace(sp.sign, NAMED["sign"])
    return phi.replace(sp.Heaviside, lambda x, *_: step(x))


def _maximum(*args: Expr) -> Expr:
    """max(a, b) = b + relu(a − b), and for lines through 0 one slope on either side"""
    slopes = [a.coeff(X) for a in args]
    if all(a == slope * X and slope.is_number for a, slope in zip(args, slopes, strict=True)):
        return sp.Max(*slopes) * relu(X) + sp.Max(*(-a for a in slopes)) * relu(-X)
    constants = [a for a in args if a.is_number]
    others = [a for a in args if not a.is_number]
    value, *rest = constants + others
    for a in rest:
        value = value + relu(a - value)
    return value


def _free_names(text: str) -> list[str]:
    """The names in a text that are neither functions nor constants; unreadable text has none."""
    try:
        tree = ast.parse(_python(text), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called]
    return sorted({n for n in names if n not in FUNCTIONS and n not in CONSTANTS})


def _python(text: str) -> str:
    """The text as Python reads it."""
    return spell_primes(text.strip().replace("^", "**"), _SPELLED)


def _listed(names: list[str]) -> str:
    return ", ".join(names[:-1]) + f" and {names[-1]}"


class _Reader:
    def __init__(self, text: str, symbols: Mapping[str, Symbol], exact: bool) -> None:
        self.text = text
        self.symbols = symbols
        self.exact = exact

    def read(self) -> Expr:
        if len(self.text) > MAX_LENGTH:
            raise UsageError(f"expected at most {MAX_LENGTH} characters, got {len(self.text)}")
        try:
            tree = ast.parse(_python(self.text), mode="eval")
            value = self._visit(tree.body)
        except (SyntaxError, ValueError) as error:
            raise self._fail("expected an arithmetic expression such as x*erf(x) + relu(x)") from error
        except (RecursionError, MemoryError) as error:
            raise self._fail("the expression is nested too deeply") from error
        if value.has(sp.zoo, sp.nan, sp.oo, -sp.oo) or value.is_extended_real is False:
            raise self._fail("the expression divides by zero or is not real")
        try:
            for number in value.atoms(sp.Number):
                check_size(number)
        except ValueError as error:
            raise self._fail(str(error), "scale the nonlinearity; a factor can go into the weights") from None
        return value

    def _fail(self, reason: str, fix: str = "") -> UsageError:
        shown = self.text if len(self.text) <= 80 else self.text[:77] + "…"
        return UsageError(f"{reason}; got {shown!r}" + (f"\n  Fix: {fix}" if fix else ""))

    def _visit(self, node: ast.expr) -> Expr:
        if isinstance(node, ast.Constant):
            return self._constant(node)
        if isinstance(node, ast.Name):
            return self._name(node.id)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
            value = self._visit(node.operand)
            return -value if isinstance(node.op, ast.USub) else value
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow):
            return self._power(self._visit(node.left), self._visit(node.right))
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Sub):
            left, right = self._visit(node.left), self._visit(node.right)
            return left + right if isinstance(node.op, ast.Add) else left - right
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult | ast.Div):
            return sp.Mul(*self._factors(node))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            return self._call(node.func.id, [self._visit(a) for a in node.args])
        raise self._fail("expected numbers, names, + - * / ** and function calls only")

    def _factors(self, node: ast.expr) -> list[Expr]:
        """The factors of a product: built at once, because sympy spreads a lone number over a sum."""
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Mult):
            return [*self._factors(node.left), self._visit(node.right)]
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            return [*self._factors(node.left), 1 / self._visit(node.right)]
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return [sp.S.NegativeOne, *self._factors(node.operand)]
        return [self._visit(node)]

    def _constant(self, node: ast.Constant) -> Expr:
        if isinstance(node.value, bool) or not isinstance(node.value, int | float):
            raise self._fail(f"expected a number, got {node.value!r}")
        if isinstance(node.value, int):
            return sp.Integer(node.value)
        if not math.isfinite(node.value):
            raise self._fail("expected a finite number")
        literal = ast.get_source_segment(_python(self.text), node) or repr(node.value)
        return sp.Rational(literal) if self.exact else sp.Float(literal)

    def _name(self, name: str) -> Expr:
        if name in self.symbols:
            return self.symbols[name]
        if name in CONSTANTS:
            return CONSTANTS[name]
        if name in FUNCTIONS:
            raise self._fail(f"the function {name} needs its argument", f"write {name}(x)")
        raise self._unknown(name, [*self.symbols, *CONSTANTS, *FUNCTIONS])

    def _unknown(self, name: str, known: list[str]) -> UsageError:
        told = KINKED_ELSEWHERE.get(name.lower())
        if told is not None:
            return self._fail(f"{name} is not in this version: it has kinks away from 0", f"{told} is close and smooth")
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
        near = near or [n for n in known if n.lower() == name.lower()]
        hint = f"did you mean {near[0]}?" if near else f"known functions: {', '.join(sorted(NAMED))}"
        return self._fail(f"unknown name {name!r}", hint)

    def _power(self, base: Expr, exponent: Expr) -> Expr:
        size = abs(exponent) if exponent.is_number else sp.S.Zero
        if size > MAX_EXPONENT:
            raise self._fail(f"expected exponents of at most {MAX_EXPONENT}, got {sp.sstr(exponent)[:40]}")
        return base**exponent

    def _call(self, name: str, args: list[Expr]) -> Expr:
        if (primed := re.fullmatch(r"_(\d+)_(.*)", name)) is not None:
            return self._derivative(primed[2], int(primed[1]), args)
        if name not in FUNCTIONS:
            raise self._unknown(name, list(FUNCTIONS))
        function, least, most = FUNCTIONS[name]
        if not least <= len(args) <= most:
            wanted = str(least) if least == most else f"{least} to {most}"
            raise self._fail(f"{name} expects {wanted} argument(s), got {len(args)}")
        return function(*args)

    def _derivative(self, name: str, order: int, args: list[Expr]) -> Expr:
        """The derivative of a function of one variable, at an argument."""
        if order > MAX_ORDER or len(args) != 1:
            raise self._fail(f"expected at most {MAX_ORDER} primes and one argument after {name}")
        return sp.diff(to_kinks(self._call(name, [X])), X, order).subs(X, args[0])
