"""Names of nonlinearities and of their derivatives: silu″ instead of the long expression that silu differentiates to.

A table leads from the expression of every derivative of a function of `NAMED`, in a form that does not depend on how
it is written, to the name with primes. `expression.parse_nonlinearity` reads the names back.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import NamedTuple

import sympy as sp
from sympy import Expr, Symbol
from sympy.core.function import AppliedUndef

from tpc.program.functions import NAMED, X

HIGHEST = 4  # derivatives in the table
SHORT = 12  # characters of a derivative that is as short as its name
LONGEST = 24  # characters of an expression that is its own name
LARGEST = 400  # operations of an expression that is looked up
PRIMES = ("", "′", "″", "‴")
OWN = {"absolute": "abs", "DiracDelta": "δ"}  # what sympy calls otherwise
_PRIMED = re.compile(r"(?P<name>[^\W\d]\w*)(?P<primes>['′″‴⁗]+|⁽[⁰¹²³⁴⁵⁶⁷⁸⁹]+⁾)(?=\s*\()")
_DIGITS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
_COUNT = {"'": 1, "′": 1, "″": 2, "‴": 3, "⁗": 4}


class Named(NamedTuple):
    """The function of X that a name stands for."""

    name: str
    function: Expr


def primed(name: str, order: int) -> str:
    """The name of a derivative: silu″, silu⁽⁴⁾."""
    return name + (PRIMES[order] if order < len(PRIMES) else f"⁽{str(order).translate(_RAISED)}⁾")


def unprimed(name: str) -> tuple[str, int]:
    """A name without its primes, and how many it has; ' counts as a prime."""
    match = re.fullmatch(r"(?P<name>.*?)(?P<primes>['′″‴⁗]*|⁽[⁰¹²³⁴⁵⁶⁷⁸⁹]+⁾)", name, re.DOTALL)
    assert match is not None
    primes = match["primes"]
    if primes.startswith("⁽"):
        return match["name"], int(primes[1:-1].translate(_DIGITS))
    return match["name"], sum(_COUNT[p] for p in primes)


def spell_primes(text: str, spelled: str) -> str:
    """The text with primed names written as identifiers, `spelled` a format of name and order."""
    return _PRIMED.sub(lambda m: spelled.format(m["name"], unprimed(m[0])[1]), text)


def split_number(phi: Expr) -> tuple[Expr, Expr]:
    """(number, function) with φ = number·function: a function that has a name, or φ without its numeric factor."""
    number, rest = phi.as_independent(X, as_Add=False)
    found = identify(rest)
    return (number, rest) if found is None else (number * found[0], found[1].function)


@lru_cache(maxsize=4096)
def identify(phi: Expr) -> tuple[Expr, Named] | None:
    """(number, named) with φ = number·named function, or None."""
    if not phi.has(X) or isinstance(phi, sp.Function | Symbol) or phi.count_ops() > LARGEST:
        return None
    scale, key = _key(phi)
    heads = _heads(phi)
    for order in range(HIGHEST + 1):
        for name in NAMED:
            if heads <= _family(name) and (entry := _entry(name, order)) is not None and entry[1] == key:
                return sp.radsimp(scale / entry[0]), Named(primed(name, order), _derivative(name, order))
    return None


@cache
def _derivative(name: str, order: int) -> Expr:
    return NAMED[name](X) if order == 0 else sp.diff(_derivative(name, order - 1), X)


@cache
def _entry(name: str, order: int) -> tuple[Expr, Expr] | None:
    """The key of a derivative, or None where its expression is as good a name."""
    phi = _derivative(name, order)
    monic = phi.as_independent(X, as_Add=False)[1]
    short = isinstance(monic, sp.Function | Symbol) or not monic.has(X) or len(str(monic)) <= SHORT
    return None if short or phi.count_ops() > LARGEST else _key(phi)


def _heads(phi: Expr) -> frozenset[type]:
    """The functions that an expression is made of."""
    return frozenset(f.func for f in phi.atoms(sp.Function))


@cache
def _family(name: str) -> frozenset[type]:
    """The functions that a nonlinearity and its derivatives are made of."""
    return _heads(_derivative(name, 0)) | _heads(_derivative(name, 1)) | _heads(_derivative(name, 2))


@lru_cache(maxsize=4096)
def _key(phi: Expr) -> tuple[Expr, Expr]:
    """φ multiplied out, as a number times what is the same for all multiples of φ."""
    expanded = sp.expand(phi)
    terms = [t.as_independent(X, as_Add=False) for t in sp.Add.make_args(expanded)]
    scale = min(terms, key=lambda t: sp.default_sort_key(t[1]))[0]
    return scale, sp.Add(*(sp.radsimp(number / scale) * rest for number, rest in terms))


# --- in expressions --------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)
def named(expr: Expr) -> Expr:
    """The expression with functions of one variable by their names, for printing."""
    free = expr.free_symbols
    if len(free) == 1 and (found := _applied(expr, *free)) is not None:
        return found
    if isinstance(expr, sp.Mul):
        return _product(expr)
    if isinstance(expr, sp.Add | sp.Pow | sp.exp) and free:
        return expr.func(*(named(a) for a in expr.args))
    return expr


def _applied(expr: Expr, variable: Symbol) -> Expr | None:
    found = identify(expr.xreplace({variable: X}))
    return None if found is None else found[0] * sp.Function(found[1].name, real=True)(variable)


def _product(expr: sp.Mul) -> Expr:
    """Factors of the same variable are named together: sympy writes silu(u)·v as one flat product."""
    groups: dict[frozenset[Symbol], list[Expr]] = {}
    for f in expr.args:
        groups.setdefault(frozenset(f.free_symbols), []).append(f)
    parts: list[Expr] = []
    for free, factors in groups.items():
        together = _applied(sp.Mul(*factors), *free) if len(free) == 1 and len(factors) > 1 else None
        parts += [named(f) for f in factors] if together is None else [together]
    return sp.Mul(*parts)


def unnamed(expr: Expr) -> Expr:
    """The expression with names replaced by what they stand for."""

    def known(e: Expr) -> bool:
        return isinstance(e, AppliedUndef) and unprimed(e.func.__name__)[0] in NAMED

    return expr.replace(known, lambda e: _derivative(*unprimed(e.func.__name__)).xreplace({X: e.args[0]}))


def text(expr: Expr) -> str:
    """The expression as sympy prints it, with names."""
    return str(named(expr))


def function_name(phi: Expr) -> str | None:
    """The name of a function of X, such as relu, δ or silu′; None for an expression."""
    shown = named(phi)
    if not isinstance(shown, sp.Function) or shown.args[0] != X:
        return None
    name = shown.func.__name__
    order = int(shown.args[1]) if len(shown.args) > 1 else 0  # DiracDelta(x, 1) is δ′
    return primed(OWN.get(name, name), order)


def called(phi: Expr) -> str:
    """The name of a function of X, or its expression with names where it has none."""
    return function_name(phi) or text(phi)


def same_up_to_number(phi: Expr, psi: Expr) -> Expr | None:
    """The number with φ = number·ψ, or None."""
    if phi == psi:
        return sp.S.One
    if not (phi.has(X) and psi.has(X)) or max(phi.count_ops(), psi.count_ops()) > LARGEST:
        return sp.radsimp(phi / psi) if phi.is_number and psi.is_number and psi != 0 else None
    (a, one), (b, two) = _key(phi), _key(psi)
    return sp.radsimp(a / b) if one == two else None


def kernel_name(phi: Expr, psi: Expr) -> str:
    """V[φ, ψ] by names where there are, for messages about one kernel."""
    return f"V[{called(phi)}, {called(psi)}]"
