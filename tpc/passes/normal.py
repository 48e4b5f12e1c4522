"""Normal form of a vector: Σ coefficient · fn(G-vectors; θ) · Π leaves, summed over bound axes.

Leaves are the X-vectors whose limit is a sum over stored atoms: readout weights and Wᵀy. A nonlinearity of
G-vectors is one term; where a leaf or a sum enters, the nonlinearity must be polynomial in it, and is multiplied out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TypeAlias

import sympy as sp
from sympy import Expr

from tpc.errors import InternalError, ProgramError
from tpc.passes.moves import Windowed, end, moved, moved_parameter, require_entrywise, sees_all, through
from tpc.program import ir, shift, tensor
from tpc.program.axes import Axes, union, without
from tpc.program.functions import argument
from tpc.program.ir import Vector, theta
from tpc.program.node import Node
from tpc.program.program import Program
from tpc.program.renaming import freshened, renamed
from tpc.program.rewrite import Recursion
from tpc.program.tensor import ONE, Tensor

Inside: TypeAlias = Callable[[Vector], "tuple[Term, ...]"]  # how the vectors of a sum are taken apart


@dataclass(frozen=True)
class Term:
    """Σ_over coefficient · fn(gs; thetas) · Π leaves, with fn in u0, u1, … and t0, t1, …"""

    coefficient: Tensor
    fn: Expr
    gs: tuple[Vector, ...]
    thetas: tuple[Tensor, ...] = ()
    leaves: tuple[Vector, ...] = ()
    over: Axes = ()

    @property
    def axes(self) -> Axes:
        """Free and bound axes."""
        vectors, scalars = (*self.gs, *self.leaves), (self.coefficient, *self.thetas)
        return union(*(s.axes for s in scalars), *(v.axes for v in vectors), self.over)

    @property
    def is_plain(self) -> bool:
        """A nonlinearity of G-vectors alone, which another nonlinearity may be composed with."""
        return self.coefficient is ONE and not self.leaves and not self.over


class Normaliser:
    """Computes normal forms; remembers them per node."""

    def __init__(self, program: Program, limit: str = "π-limit") -> None:
        self._program = program
        self._limit = limit
        self._known: dict[Vector, tuple[Term, ...]] = {}
        self._summands: dict[tuple[Vector, Axes], tuple[Term, ...]] = {}
        self._spread: dict[tuple[Vector, Axes], bool] = {}
        self._recall = Recursion()

    def terms(self, x: Vector) -> tuple[Term, ...]:
        """The terms whose sum is x."""
        return self._recall(self._known, x, lambda x: tuple(self._expand(x)))

    def summands(self, x: Vector, apart: Axes) -> tuple[Term, ...]:
        """The terms of a sum, one by one even where it is a G-vector, down to vectors without the axes `apart`."""
        return self._recall(self._summands, (x, apart), self._taken_apart)

    def _taken_apart(self, key: tuple[Vector, Axes]) -> tuple[Term, ...]:
        x, apart = key

        def inside(y: Vector) -> tuple[Term, ...]:
            return self.summands(y, apart) if y.kind == "G" and self._spreads(y, apart) else self.terms(y)

        if isinstance(x, ir.LinComb):
            return tuple(self._lincomb(x, inside))
        if isinstance(x, ir.RenameVector):
            return tuple(self._renamed(x, inside))
        return self.terms(x)

    def _spreads(self, x: Vector, apart: Axes) -> bool:
        """Whether a sum has an axis of `apart` from coefficients alone."""
        return self._recall(self._spread, (x, apart), self._is_spread)

    def _is_spread(self, key: tuple[Vector, Axes]) -> bool:
        x, apart = key
        if isinstance(x, ir.RenameVector):
            old = {b: a for a, b in x.pairs}
            return self._spreads(x.arg, tuple(old.get(a, a) for a in apart))
        if not isinstance(x, ir.LinComb) or not set(x.axes) & set(apart):
            return False
        own = (set(without(c.axes, (*y.axes, *over))) & set(apart) for c, y, over in x.terms)
        return any(own) or any(self._spreads(y, apart) for _, y, _ in x.terms)

    def _expand(self, x: Vector) -> Iterable[Term]:
        if x.kind == "G":
            return (Term(ONE, argument(0), (x,)),)
        match x:
            case ir.VectorWeight() | ir.MatMul():
                return (Term(ONE, sp.Integer(1), (), leaves=(x,)),)
            case ir.LinComb():
                return self._lincomb(x)
            case ir.RenameVector():
                return self._renamed(x)
            case shift.ShiftedVector() | shift.UnshiftedVector():
                return self._windowed(x)
            case ir.Nonlin():
                return self.applied(x.fn, x.xs, x.thetas, x)
        raise InternalError(f"no normal form for {type(x).__name__}")

    def _lincomb(self, x: ir.LinComb, inside: Inside | None = None) -> Iterator[Term]:
        for c, y, over in x.terms:
            for t in (inside or self.terms)(y):
                t = freshened(t, t.over, union(c.axes, over, x.axes, y.axes))
                yield Term(tensor.contract((c, t.coefficient)), t.fn, t.gs, t.thetas, t.leaves, (*over, *t.over))

    def _renamed(self, x: ir.RenameVector, inside: Inside | None = None) -> Iterator[Term]:
        new = dict(x.pairs)
        for t in (inside or self.terms)(x.arg):
            yield renamed(freshened(t, t.over, union(new.values(), x.arg.axes)), new)

    def _windowed(self, x: Windowed) -> Iterator[Term]:
        # shift(c f(g; θ) Π v) = shift(c) f(shift(g); shift(θ)) Π shift(v), masked by shift(1) where nothing is seen
        require_entrywise(x)
        for t in self.terms(x.arg):
            t = freshened(t, t.over, union(x.axes, x.arg.axes))
            plain = sees_all(x) and end(x) not in t.coefficient.axes
            coefficient = t.coefficient if plain else through(x, t.coefficient)
            gs, leaves = (tuple(moved(x, v) for v in vs) for vs in (t.gs, t.leaves))
            yield Term(coefficient, t.fn, gs, tuple(moved_parameter(x, p) for p in t.thetas), leaves, t.over)

    def applied(self, fn: Expr, xs: Sequence[Vector], thetas: Sequence[Tensor], at: Node) -> list[Term]:
        """The terms of fn(xs; thetas)."""
        gathered = _Gathered(thetas)
        free: Axes = union(*(x.axes for x in xs), *(t.axes for t in thetas))
        sums: dict[sp.Symbol, tuple[Term, ...]] = {}
        images: dict[Expr, Expr] = {}
        for i, x in enumerate(xs):
            terms = self.terms(x)
            if len(terms) == 1 and terms[0].is_plain:
                images[argument(i)] = gathered.add(terms[0])
            else:
                placeholder = sp.Symbol(f"w{i}", real=True)
                sums[placeholder] = terms
                images[argument(i)] = placeholder
        fn = fn.xreplace(images)
        out: list[Term] = []
        for factor, powers in self._monomials(fn, list(sums), at):
            chosen = [sums[w] for w, n in zip(sums, powers) for _ in range(n)]
            for combination in product(*chosen):
                out.append(_multiplied(factor, gathered.copy(), combination, free))
        return out

    def _monomials(self, fn: Expr, ws: list[sp.Symbol], at: Node) -> Iterator[tuple[Expr, tuple[int, ...]]]:
        if not ws:
            yield fn, ()
            return
        if len(ws) == 1 and (slope := sp.diff(fn, ws[0])).free_symbols.isdisjoint(ws) and fn.subs(ws[0], 0) == 0:
            yield slope, (1,)
            return
        try:
            poly = sp.Poly(fn, *ws)
        except sp.PolynomialError:
            raise ProgramError(
                "a nonlinearity meets a sum of stored nonlinearities (two in a row, or one of a readout weight), "
                f"which has no finite representation in the {self._limit}",
                self._program.where(at),
                "put a tpc.dense layer between them",
            ) from None
        for powers, factor in poly.terms():
            yield factor, tuple(powers)


class _Gathered:
    """G-vectors and parameters collected from several terms, each once."""

    def __init__(self, thetas: Iterable[Tensor] = ()) -> None:
        self.gs: list[Vector] = []
        self.thetas: list[Tensor] = list(thetas)

    def copy(self) -> _Gathered:
        made = _Gathered(self.thetas)
        made.gs = list(self.gs)
        return made

    def add(self, t: Term) -> Expr:
        """The function of a term, written in the collected arguments."""
        images: dict[Expr, Expr] = {}
        for i, g in enumerate(t.gs):
            if g not in self.gs:
                self.gs.append(g)
            images[argument(i)] = argument(self.gs.index(g))
        for j, p in enumerate(t.thetas):
            if p not in self.thetas:
                self.thetas.append(p)
            images[theta(j)] = theta(self.thetas.index(p))
        return t.fn.xreplace(images)


def _multiplied(factor: Expr, gathered: _Gathered, parts: Iterable[Term], free: Axes) -> Term:
    coefficient: Tensor = ONE
    leaves: tuple[Vector, ...] = ()
    over: Axes = ()
    taken = free
    for t in parts:
        t = freshened(t, t.over, taken)
        taken = union(taken, t.axes)
        factor = factor * gathered.add(t)
        coefficient = tensor.contract((coefficient, t.coefficient))
        leaves += t.leaves
        over += t.over
    number, factor = factor.as_coeff_Mul()
    if number != 1:
        coefficient = tensor.contract((tensor.Constant(number), coefficient))
    return Term(coefficient, factor, tuple(gathered.gs), tuple(gathered.thetas), leaves, over)
