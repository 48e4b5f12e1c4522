"""Folding: the old atoms of a store become one polynomial, held in tensors of fixed size.

An atom is a function of z, x_m(z) = φ(⟨z,b₁⟩, ⟨z,b₂⟩, …), and has a Hermite series. Cut at degree D, the sum over
atoms is P(z) = Σ_{n≤D} 1/n! ⟨M_n, He_n(z)⟩ with M_n = Σ_m A_m ⊗ E∇ⁿx_m, and for every function R of a batch's latents

    E[R P] = Σ_n 1/n! ⟨M_n, E∇ⁿR⟩,      E[R ∇P] = Σ_n 1/n! ⟨M_{n+1}, E∇ⁿR ⊗ ·⟩,
    E∇ⁿR = Σ_{|β|=n} n!/β! · E[∂^β R] · sym(g₁^⊗β₁ ⊗ g₂^⊗β₂ ⊗ …).

For one latent on each side this is the Mehler series in Stein's form. The derivation of the limit is unchanged:
wherever a sum over atoms arises, now over the newest ones, the same sum with P is added. P is one function in the
forward and the backward pass, so backward is the exact gradient of the folded forward pass. Weights w_n, 1 unless they
are fitted, multiply M_n where it is read, and keep that property.

What P leaves out can be kept as its values at random points (tail.py); it is then added wherever P is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import factorial, prod

import sympy as sp
from sympy import Expr

from tpc.errors import InternalError, ProgramError, SourceLine, UserError
from tpc.limits import tail as tails
from tpc.limits.expect import expectation
from tpc.limits.graph import LimitGraph
from tpc.limits.hermite import Index, derivative, indices
from tpc.limits.nodes import State, rank_axis
from tpc.limits.pi import PiLimit
from tpc.limits.power import Half, Opened, power, slope, slot_axis
from tpc.limits.store import Fold, HermiteTensor, Store
from tpc.limits.term import Leaf, LimitTerm
from tpc.passes.normal import Term
from tpc.program import tensor
from tpc.program.axes import Axes, Axis, apart, union, without
from tpc.program.functions import argument, partial
from tpc.program.naming import text
from tpc.program.program import Program
from tpc.program.tensor import ONE, ZERO, Constant, Tensor


def is_folded(store: Store) -> bool:
    """Whether old atoms are folded: all but those of which every place of an axis has its own, which are kept."""
    return not store.tied


def fold_store(store: Store, degree: int, points: int = 0) -> Fold:
    """The tensors a store needs, and `points` values of what they leave out."""
    moments = []
    for n in range(degree + 1):
        profiles = tuple((a, derivative(store.fn, a)) for a in indices(len(store.columns), n) if _remains(store, a))
        if profiles:
            shape = (*store.coefficients.axes[1:], *((slot_axis(store.name, n),) if n else ()))
            state, weight = State(f"{store.name}.M{n}", shape), State(f"{store.name}.w{n}", ())
            moments.append(HermiteTensor(n, profiles, state, weight))
    return Fold(store, degree, tuple(moments), tails.tail_of(store, degree, points))


@lru_cache(maxsize=4096)
def _remains(store: Store, index: Index) -> bool:
    """Whether E ∂^index fn is not zero for all atoms."""
    fn = derivative(store.fn, index)
    return fn != 0 and expectation(fn, store.columns, store.thetas) is not ZERO


def least_useful_degree(store: Store) -> int:
    """The first degree from 1 on that the function of a store has; 1 for a constant."""
    if not store.columns:
        return 1
    for n in range(1, 12):
        if any(_remains(store, a) for a in indices(len(store.columns), n)):
            return n
    raise InternalError(f"{text(store.fn)} has no Hermite coefficient up to degree 11")


def fold(program: Program, degree: int, halves: bool = False, points: int = 0) -> LimitGraph:
    """The π-limit of a program with every sum over atoms extended by the terms of degree ≤ `degree`.

    The terms beyond it are sampled at so many `points`. With `halves` matrices (degree 2) are contracted with one
    latent first, which forward and backward pass share.
    Raises UserError where no term of a store is left.
    """
    return _FoldedLimit(program, degree, halves, points).graph()


class _FoldedLimit(PiLimit):
    """A derivation in which every store's oldest atoms are a polynomial."""

    def __init__(self, program: Program, degree: int, halves: bool, points: int) -> None:
        super().__init__(program)
        self.halves = halves
        stores = (s for stores in self.stores.values() for s in stores if is_folded(s))
        self.folds = {s.name: fold_store(s, degree, points) for s in stores}
        for f in self.folds.values():
            if f.store.columns and all(m.order == 0 for m in f.moments):
                raise UserError(
                    f"folding {text(f.store.fn)} to degree {degree} would keep nothing of it but a constant; "
                    f"give a degree from {least_useful_degree(f.store)} on"
                )
        self._places: dict[Tensor, int] = {}  # latents in order of appearance: equal products get one form

    def graph(self) -> LimitGraph:
        made = super().graph()
        return replace(made, folds=tuple(self.folds[s.name] for s in made.stores if s.name in self.folds))

    # --- where sums over atoms arise -------------------------------------------------------------------------------

    def means(self, t: Term) -> Iterator[Tensor]:
        for s, leaf in self._sums(t):
            yield self.expected(s, s.fn)
            if leaf is not None:
                yield from self._values(self.without_leaves(t), t.fn, leaf)

    def applied(self, store: Store, t: Term) -> Iterator[Tensor]:
        yield from super().applied(store, t)
        if t.leaves:
            weights = [leaf.store.weight for x in t.leaves for leaf in self.leaves(x)]
            raise _two_sums([store.weight, *weights], self.program.where(t.leaves[0]))
        yield from self._values(self.without_leaves(t), t.fn, Leaf(store))

    def projections(self, t: Term) -> Iterator[Tensor]:
        base = self.without_leaves(t)
        for s, leaf in self._sums(t):
            for j, g in enumerate(s.latents):
                slope_fn = partial(s.fn, argument(j))
                if slope_fn == 0:
                    continue
                if leaf is None or j >= len(base.latents):  # the stored latents of an atom: E[R ∇x]
                    yield self.expected(s, slope_fn, g, projected=True)
                    continue
                base_slope = partial(t.fn, argument(j))
                if set(g.axes) & set(s.over):
                    yield self.expected(s, slope_fn, g, projected=True)
                    yield from self._slopes(base, base_slope, leaf, g)
                else:
                    known = self.expected(s, slope_fn, projected=True)
                    sums = tensor.add((known, *self._slopes(base, base_slope, leaf)))
                    yield tensor.contract((g, sums))
            if leaf is not None:
                yield from self._gradients(base, t.fn, leaf)

    def _sums(self, t: Term) -> list[tuple[LimitTerm, Leaf | None]]:
        """A term's sums over atoms, each with the leaf it comes from."""
        if len(t.leaves) > 1:
            where = next((line for x in t.leaves if (line := self.program.where(x))), None)
            raise _two_sums([leaf.store.weight for x in t.leaves for leaf in self.leaves(x)], where)
        leaves = [leaf for x in t.leaves for leaf in self.leaves(x)] if t.leaves else [None]
        return list(zip(self.limits(t), leaves, strict=True))

    # --- the same sums with the polynomial ---------------------------------------------------------------------------

    def _values(self, reader: LimitTerm, fn: Expr, leaf: Leaf) -> Iterator[Tensor]:
        """Σ_over coefficient · E[fn P], one term per degree, and E[fn T] of the sampled tail."""
        if (f := self.folds.get(leaf.store.name)) is None:
            return
        beside = self._beside(reader, leaf)
        yield from self._polynomial(reader, fn, f, beside)
        if f.tail is not None:
            yield from tails.values(f.tail, reader, fn, f.degree, beside)

    def _slopes(self, reader: LimitTerm, fn: Expr, leaf: Leaf, *extra: Tensor) -> Iterator[Tensor]:
        """Σ_over coefficient · extra · E[∂R P] for ∂R = fn; with `_gradients` E[z R P], and the same of the tail."""
        if (f := self.folds.get(leaf.store.name)) is None:
            return
        beside = self._beside(reader, leaf, *extra)
        yield from self._polynomial(reader, fn, f, beside)
        if f.tail is not None:
            yield from tails.slopes(f.tail, reader, fn, f.degree, beside)

    def _gradients(self, reader: LimitTerm, fn: Expr, leaf: Leaf) -> Iterator[Tensor]:
        """Σ_over coefficient · E[fn ∇P], one term per degree, and what the tail adds to it."""
        if (f := self.folds.get(leaf.store.name)) is None:
            return
        beside = self._beside(reader, leaf, left=tuple(rank_axis(c) for c in leaf.store.columns[:1]))
        yield from self._polynomial(reader, fn, f, beside, opened=True)
        if f.tail is not None:
            yield from tails.gradients(f.tail, reader, fn, f.degree, beside)

    def _beside(self, reader: LimitTerm, leaf: Leaf, *extra: Tensor, left: Axes = ()) -> tails.Beside:
        """A reader's coefficient and a leaf's dual beside the tensors of its store, of which the axes `left` stay."""
        factors, over = (reader.coefficient, *extra), reader.over
        if (names := leaf.names) is None:
            raise ProgramError(
                f"the weights of {leaf.store.weight!r} are seen through a window, and cannot be folded",
                None,
                "train with mode exact",
            )
        if leaf.dual is not None:
            rank = (rank_axis(leaf.store.coefficients),)
            names |= apart(rank, union(left, over, *(f.axes for f in factors)))
            factors = (*factors, tensor.rename(leaf.dual, names))
            over = (*over, *(names.get(a, a) for a in rank))
        return tails.Beside(factors, over, names)

    def _polynomial(
        self, reader: LimitTerm, fn: Expr, f: Fold, beside: tails.Beside, opened: bool = False
    ) -> Iterator[Tensor]:
        """E[fn P], one term per degree; `opened` E[fn ∇P]."""
        for m in f.moments:
            means = list(self._hermite(reader, fn, m.order - opened)) if m.order >= opened else []
            if means:
                made = _Reading(f.store, m, slot_axis(f.store.name, m.order - opened), beside)
                yield from made.halves(means, opened) if self.halves and m.order == 2 else made.whole(means, opened)

    def _hermite(self, reader: LimitTerm, fn: Expr, order: int) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """E∇ⁿ fn / n! as factors E[∂^β fn]/β! of symmetric products of latents, g_i taken β_i times."""
        for index in indices(len(reader.latents), order):
            slope_fn = derivative(fn, index)
            value = expectation(slope_fn, reader.latents, reader.thetas) if slope_fn != 0 else ZERO
            if value is not ZERO:
                number = Constant(sp.Rational(1, prod(map(factorial, index))))
                args = [g for g, n in zip(reader.latents, index, strict=True) for _ in range(n)]
                for g in args:
                    self._places.setdefault(g, len(self._places))
                yield tensor.contract((number, value)), tuple(sorted(args, key=lambda g: self._places[g]))


@dataclass(frozen=True)
class _Reading:
    """Σ_over factors · ⟨M, ·⟩, with the outer axes of M renamed; `lower` is the packed axis of what is put in."""

    store: Store
    held: HermiteTensor
    lower: Axis
    beside: tails.Beside

    @property
    def rank(self) -> Axis:
        return rank_axis(self.store.columns[0])

    @property
    def tensor(self) -> Tensor:
        return tensor.rename(self.held.state, dict(self.beside.names))

    @property
    def slot(self) -> Axis:
        return self.held.state.axes[-1]

    def whole(self, means: Sequence[tuple[Tensor, tuple[Tensor, ...]]], opened: bool) -> Iterator[Tensor]:
        """With E∇ⁿR/n! packed, a sum of products; `opened` leaves one slot of M as the rank axis."""
        m, weight, n = self.tensor, self.held.weight, self.held.order
        if n == opened:  # nothing to put in
            ((number, _),) = means
            left = tensor.rename(m, {self.slot: self.rank}) if opened else m
            yield tensor.contract((number, weight, left, *self.beside.factors), self.beside.over)
            return
        if not opened:  # product by product: the slopes of R by its latents put in the same ones
            for number, args in means:
                packed = power(args, self.rank, self.lower)
                yield tensor.contract((number, weight, m, packed, *self.beside.factors), (*self.beside.over, self.slot))
            return
        summed = tuple(a for a in m.axes if a in self.beside.over)
        flat = self.beside.flat
        inner = [f for f in flat if set(f.axes) & set(summed)]
        dual = tensor.contract((m, *inner), summed)
        if len(means) == 1 and len(set(means[0][1])) == 1:
            made = slope(dual, means[0][1][0], self.rank, self.slot)
            number, made = means[0][0], tensor.contract((Constant(sp.Rational(1, n)), made))
        else:
            number = ONE
            packed = tensor.add(tensor.contract((c, power(args, self.rank, self.lower))) for c, args in means)
            made = Opened(dual, packed, self.rank, self.slot, self.lower)
        rest = (f for f in flat if f not in inner)
        yield tensor.contract((number, weight, made, *rest), without(self.beside.over, summed))

    def halves(self, means: Sequence[tuple[Tensor, tuple[Tensor, ...]]], opened: bool) -> Iterator[Tensor]:
        """For a matrix M: ⟨M, g ⊗ ·⟩ first, for every latent g."""
        second = slot_axis(self.store.name, 1)
        for number, args in means:
            half = Half(self.held.state, args[0], self.rank, self.slot, second)
            made = tensor.rename(half, dict(self.beside.names))
            scalars = (number, self.held.weight)
            over = self.beside.over
            if opened:
                yield tensor.contract(
                    (*scalars, tensor.rename(made, {second: self.rank}), *self.beside.factors), self.beside.over
                )
            else:
                other = tensor.rename(args[1], {self.rank: second})
                yield tensor.contract((*scalars, made, other, *self.beside.factors), (*over, second))


def _two_sums(weights: list[str], where: SourceLine | None) -> ProgramError:
    names = " and ".join(dict.fromkeys(weights))
    message = f"a product of two sums over stored atoms (of {names}) cannot be folded"
    return ProgramError(message, where, "train with mode exact")
