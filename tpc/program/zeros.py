"""Divisions by what is 0 for a sample of zeros: one such sample makes the loss of its whole batch NaN.

What is 0 is followed from the data to every node: biases that start at 0 are 0 at initialization.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import partial

import sympy as sp
from sympy import Expr

from tpc.errors import ProgramWarning
from tpc.program import ir, shift, tensor
from tpc.program.functions import argument
from tpc.program.ir import theta
from tpc.program.node import Node
from tpc.program.program import Program

FIX = "add a small number to what you divide by, as tpc.rms_norm(h, eps=1e-5) does"


def warn_of_zero_divisions(program: Program) -> None:
    """A ProgramWarning, with the user's line, for every division by or logarithm of what is 0 for a sample of zeros."""
    zero: dict[Node, bool] = {}
    told: set[tuple[str, int]] = set()
    for n in program.nodes:
        what = next((e for e in functions(n) if _is_singular(e, _zeros(n, zero))), None)
        where = program.where(n)
        if what is not None and where is not None and (where.file, where.line) not in told:
            told.add((where.file, where.line))
            verb = "takes the logarithm of" if isinstance(what, sp.log) else "divides by"
            message = f"{verb} what is 0 for a sample of zeros, which makes the whole batch's loss nan"
            quoted = f"\n    {where.text}" if where.text else ""
            warnings.warn_explicit(f"{message}{quoted}\n  Fix: {FIX}", ProgramWarning, where.file, where.line)
        zero[n] = _is_zero(n, zero)


def functions(n: Node) -> Iterable[Expr]:
    """The divisions and logarithms in what a node computes."""
    if not isinstance(n, tensor.Map | ir.Nonlin | ir.Moment):
        return ()
    return [e for e in n.fn.atoms(sp.Pow, sp.log) if e.free_symbols and (isinstance(e, sp.log) or e.exp.is_negative)]


def _is_singular(e: Expr, zeros: Mapping[Expr, Expr]) -> bool:
    base = e.args[0]
    return not zeros.keys().isdisjoint(base.free_symbols) and base.xreplace(dict(zeros)) == 0


def _zeros(n: Node, zero: Mapping[Node, bool]) -> dict[Expr, Expr]:
    """The symbols of a node's function that stand for zeros."""
    if isinstance(n, tensor.Map):
        given: list[tuple[Expr, Node]] = [(argument(i), a) for i, a in enumerate(n.args)]
    elif isinstance(n, ir.Nonlin | ir.Moment):
        given = [(argument(i), x) for i, x in enumerate(n.xs)] + [(theta(j), t) for j, t in enumerate(n.thetas)]
    else:
        given = []
    return {symbol: sp.S.Zero for symbol, operand in given if zero[operand]}


def _is_zero(n: Node, zero: Mapping[Node, bool]) -> bool:
    """Whether a node is 0 at initialization for a sample of zeros."""
    known: Callable[[Node], bool] = partial(zero.__getitem__)
    match n:
        case tensor.Input():
            return n.name == "x"
        case tensor.Constant():
            return bool(n.value == 0)
        case tensor.Weight() | ir.VectorWeight():
            return bool(n.std == 0)
        case tensor.Add():
            return all(map(known, n.terms))
        case tensor.Contract():
            return any(map(known, n.factors))
        case ir.LinComb():
            return all(known(c) or known(x) for c, x, _ in n.terms)
        case ir.MatMul():
            return known(n.x)
        case tensor.Map() | ir.Nonlin() | ir.Moment():
            zeros = _zeros(n, zero)
            return bool(zeros) and bool(n.fn.xreplace(dict(zeros)) == 0)
        case tensor.Rename() | tensor.Broadcast() | tensor.StopGradient() | ir.RenameVector() | ir.StopGradientVector():
            return known(n.arg)
        case shift.Shifted() | shift.ShiftedVector():
            return known(n.arg)
    return False
