"""Folding: sums over old atoms become contractions with tensors of fixed size.

By the Mehler series in Stein's form, E φ(u)ψ(v) = Σ_k c^k/k! · E φ^(k)(u) · E ψ^(k)(v) with c = ⟨B_m, g⟩, so
Σ_m A_m V[φ,ψ](B_m, g) = Σ_k E ψ^(k)(⟨z,g⟩)/k! · ⟨M_k, g^⊗k⟩ with M_k = Σ_m A_m E φ^(k)(⟨z,B_m⟩) B_m^⊗k. Each sum over
atoms is kept, for the newest ones, and gains the terms of degree ≤ D, whose tensors hold all others. A backward pass
reads the same tensors: it is the exact gradient of the folded forward pass. Weights w_k, 1 unless they are fitted,
multiply the tensors where they are read, and keep that property.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import factorial

import sympy as sp
from sympy import Expr

from tpc.errors import InternalError, UserError
from tpc.gaussian.kernel import kernel as mean_of
from tpc.gaussian.symbols import C, P, Q
from tpc.limits.graph import (
    Accumulate,
    Expectation,
    Gram,
    Kernel,
    LimitGraph,
    State,
    Store,
    Update,
    atoms_in,
    gram,
    kernel,
    rank_axis,
)  # fmt: skip
from tpc.limits.power import Half, power, slope, slot_axis
from tpc.program import tensor
from tpc.program.axes import Axes, Axis, fresh, union, without
from tpc.program.functions import X
from tpc.program.node import Node, rebuild
from tpc.program.tensor import ONE, ZERO, Add, Constant, Contract, Rename, Tensor

Product = tuple[tuple[Tensor, ...], Axes]  # factors, summed axes


@dataclass(frozen=True)
class Moment:
    """M_order = Σ_m A_m · E profile(⟨z, B_m⟩) · Φ_order(B_m), read with the weight."""

    order: int
    profile: Expr
    state: State
    weight: State


@dataclass(frozen=True)
class Fold:
    """A store whose atoms are folded, and the tensors that hold them."""

    store: Store
    degree: int
    moments: tuple[Moment, ...]

    @property
    def column(self) -> State:
        """The stored latents B."""
        return self.store.columns[0]


@lru_cache(maxsize=256)
def derivative(fn: Expr, order: int) -> Expr:
    """fn^(order), a function of X."""
    return sp.diff(fn, X, order)


def fold_store(store: Store, degree: int) -> Fold:
    """The tensors a store needs. Raises UserError for atoms that are products of several latents."""
    if len(store.columns) != 1 or store.thetas:
        raise UserError(
            f"the atoms of {store.weight!r} are {store.fn}, a function of {len(store.columns)} latents and "
            f"{len(store.thetas)} parameters; folding knows functions of one latent. Train it with mode exact."
        )
    moments = []
    for k in range(degree + 1):
        profile = derivative(store.function, k)
        if _vanishes(profile):
            continue
        shape = (*store.coefficients.axes[1:], *((slot_axis(store.name, k),) if k else ()))
        name = f"{store.name}.M{k}"
        moments.append(Moment(k, profile, State(name, shape), State(f"{store.name}.w{k}", ())))
    return Fold(store, degree, tuple(moments))


def fold(graph: LimitGraph, degree: int, halves: bool = False) -> LimitGraph:
    """The graph with every sum over atoms extended by the terms of degree ≤ `degree`.

    With `halves` matrices (degree 2) are contracted with one latent first, which forward and backward pass share.
    Raises UserError where a store has no such series, or where no term of it is left.
    """
    folder = _Folder(graph, degree, halves)
    image = folder.image
    updates = tuple((weight, tuple(_mapped(u, folder) for u in changes)) for weight, changes in graph.updates)
    return replace(
        graph,
        outputs=tuple((name, image(t)) for name, t in graph.outputs),
        updates=updates,
        norms=tuple((name, image(t)) for name, t in graph.norms),
        folds=tuple(folder.folds.values()),
        sources={image(t): n for t, n in graph.sources.items()},
    )


def _mapped(u: Update, folder: _Folder) -> Update:
    image = folder.image
    if isinstance(u, Accumulate):
        return replace(u, gradient=image(u.gradient))
    return replace(
        u,
        coefficient=image(u.coefficient),
        columns=tuple(image(c) for c in u.columns),
        thetas=tuple(image(t) for t in u.thetas),
    )


class _Folder:
    """One pass: remembers the image of every tensor."""

    def __init__(self, graph: LimitGraph, degree: int, halves: bool) -> None:
        self.degree = degree
        self.halves = halves
        self.folds: dict[str, Fold] = {s.name: fold_store(s, degree) for s in graph.stores}
        for f in self.folds.values():
            if all(m.order == 0 for m in f.moments):
                raise UserError(
                    f"folding {f.store.fn} to degree {degree} would keep nothing of it but a constant; "
                    f"give a degree from {least_useful_degree(f.store)} on"
                )
        self._known: dict[Tensor, Tensor] = {}

    def image(self, x: Tensor) -> Tensor:
        if x not in self._known:
            self._known[x] = self._image(x)
        return self._known[x]

    def _image(self, x: Tensor) -> Tensor:
        match x:
            case Contract():
                made = tensor.contract((self.image(f) for f in x.factors), x.over)
                atoms = atoms_in(x.over)
                if not atoms:
                    return made
                if len(atoms) > 1:
                    raise UserError("a product of two sums over atoms cannot be folded; train with mode exact")
                return tensor.add((made, *self._folded(x, atoms[0])))
            case tensor.Add():
                return tensor.add(self.image(t) for t in x.terms)
            case Rename():
                return tensor.rename(self.image(x.arg), dict(x.pairs))
            case tensor.Broadcast():
                return tensor.broadcast(self.image(x.arg), x.axes)
            case State() | tensor.Input():
                return x

        def image(n: Node) -> Node:
            return self.image(n) if isinstance(n, Tensor) else n

        rebuilt = rebuild(x, image)
        assert isinstance(rebuilt, Tensor)
        return rebuilt

    # --- one sum over atoms ------------------------------------------------------------------------------------

    def _folded(self, x: Contract, atom: Axis) -> Iterator[Tensor]:
        fold = self.folds[atom.name]
        factors = tuple(self.image(f) for f in x.factors)
        taken = union(x.over, *(f.axes for f in factors))
        for product in _products(factors, x.over, atom, taken):
            yield from self._expanded(product, fold)

    def _expanded(self, product: Product, fold: Fold) -> Iterator[Tensor]:
        """The terms of a product of A, at most one kernel, Gram entries and B."""
        factors, over = product
        store, atom, b = fold.store, fold.store.atom, fold.column
        means = [f for f in factors if isinstance(f, Kernel) and f.c is ZERO and f.p is gram(b, b)]
        rest = [f for f in factors if atom not in f.axes and f not in means]
        stored = [f for f in factors if atom in f.axes and f not in means]
        kernels = [f for f in stored if isinstance(f, Kernel)]
        vectors = Counter(_other(f, b) for f in stored if isinstance(f, Gram))
        open_slots = sum(f is b for f in stored)
        others = [f for f in stored if not isinstance(f, Kernel | Gram) and f is not b]
        outer = _renaming(others, store.coefficients)
        if outer is None or len(kernels) + len(means) > 1 or open_slots > 1:
            raise _unknown(store, stored)
        base = sum(vectors.values()) + open_slots
        for k in range(max(0, self.degree - base) + 1) if kernels else (0,):
            number: Expr = sp.Rational(1, factorial(k))
            profile: Expr = means[0].phi if means else sp.Integer(1)
            read: Tensor = ONE
            powers = Counter(vectors)
            if kernels:
                g, phi, psi, q = _sides(kernels[0], b, store)
                profile, reader = derivative(phi, k), derivative(psi, k)
                read = kernel(reader, sp.Integer(1), q, ZERO, ZERO)
                powers[g] += k
            moment, ratio = self._moment(fold, base + k, profile)
            number *= ratio
            if number != 0 and read is not ZERO and moment is not None:
                scalars = (Constant(number), read, moment.weight)
                bound = without(over, (atom,))
                yield _term(fold, moment, outer, scalars, +powers, open_slots, rest, bound, self.halves)

    def _moment(self, fold: Fold, order: int, profile: Expr) -> tuple[Moment | None, Expr]:
        """The tensor with this profile, up to a number."""
        if order > self.degree or _vanishes(profile):
            return None, sp.Integer(0)
        for m in fold.moments:
            if m.order != order:
                continue
            ratio = sp.Integer(1) if m.profile == profile else sp.simplify(profile / m.profile)
            if ratio.is_number:
                return m, ratio
            if fold.column.unit and not profile.has(X):  # the mean over unit atoms was taken out of the sum before
                mean = mean_of(m.profile, sp.Integer(1)).value
                if mean is not None:
                    return m, profile / mean.xreplace({P: sp.Integer(1), Q: sp.Integer(1), C: sp.Integer(0)})
        raise UserError(
            f"folding the atoms {fold.store.function} of {fold.store.weight!r} needs their tensor of degree {order} "
            f"with E {profile}, which is not among those it keeps; train this program with mode exact"
        )


def _term(
    fold: Fold,
    moment: Moment,
    names: dict[Axis, Axis],
    scalars: tuple[Tensor, ...],
    powers: Counter[Tensor],
    open_slots: int,
    rest: list[Tensor],
    over: Axes,
    halves: bool,
) -> Tensor:
    """scalars · Σ_over rest · ⟨M, Π vectors⟩, with the rank axis of B left where a slot is open.

    `names` renames the outer axes of M.
    """
    n, m = moment.order, tensor.rename(moment.state, names)
    if n == 0:
        return tensor.contract((*scalars, m, *rest), over)
    rank, slot = rank_axis(fold.column), slot_axis(fold.store.name, n)
    ordered = [v for v, _ in powers.most_common()]
    two = len(ordered) == 2
    if len(ordered) > 2 or (two and (open_slots or powers[ordered[1]] > 1)):
        raise UserError("a product of different latents cannot be folded yet; train this program with mode exact")
    if not ordered:  # degree 1 with its slot open
        return tensor.contract((*scalars, tensor.rename(m, {slot: rank}), *rest), over)
    g = ordered[0]
    if n == 2 and halves:
        second = slot_axis(fold.store.name, 1)
        half = tensor.rename(Half(moment.state, g, rank, slot, second), names)
        if open_slots:
            return tensor.contract((*scalars, tensor.rename(half, {second: rank}), *rest), over)
        other = tensor.rename(ordered[-1], {rank: second})
        return tensor.contract((*scalars, half, other, *rest), (*over, second))
    if not open_slots and not two:
        return tensor.contract((*scalars, m, power(g, rank, slot), *rest), (*over, slot))
    summed = tuple(a for a in m.axes if a in over)
    inner = [f for f in rest if set(f.axes) & set(summed)]
    outer = [f for f in rest if f not in inner]
    dual = tensor.contract((m, *inner), summed)
    opened = tensor.contract((Constant(sp.Rational(1, n)), slope(dual, g, rank, slot)))
    factors = (*scalars, opened, *outer, *ordered[1:])
    left = without(over, summed)
    return tensor.contract(factors, (*left, rank) if two else left)


def _renaming(others: list[Tensor], coefficients: State) -> dict[Axis, Axis] | None:
    """How the axes of A are named in a product, None if something else is in it."""
    if len(others) != 1:
        return None
    (a,) = others
    if isinstance(a, Rename) and a.arg is coefficients:
        return dict(a.pairs)
    return {} if a is coefficients else None


def _products(factors: tuple[Tensor, ...], over: Axes, atom: Axis, taken: Axes) -> Iterator[Product]:
    """Sums and inner contractions that involve the atoms, multiplied out."""
    for i, f in enumerate(factors):
        if atom not in f.axes:
            continue
        others = factors[:i] + factors[i + 1 :]
        if isinstance(f, Contract):
            clash = {}
            for a in f.over:
                if a in taken:
                    clash[a] = fresh(a.primed(), taken)
                taken = (*taken, clash.get(a, a))
            inner = tuple(tensor.rename(g, clash) for g in f.factors)
            bound = tuple(clash.get(a, a) for a in f.over)
            yield from _products((*inner, *others), (*over, *bound), atom, taken)
            return
        if isinstance(f, Add):
            for t in f.terms:
                yield from _products((t, *others), over, atom, taken)
            return
    yield factors, over


def _other(entry: Gram, b: State) -> Tensor:
    return entry.b if entry.a is b else entry.a


def _sides(k: Kernel, b: State, store: Store) -> tuple[Tensor, Expr, Expr, Tensor]:
    """(g, φ of the atom, ψ of the reader, |g|²) of V[φ,ψ] between stored latents and g."""
    if not isinstance(k.c, Gram) or b not in (k.c.a, k.c.b):
        raise _unknown(store, [k])
    g = _other(k.c, b)
    stored, read = gram(b, b), gram(g, g)
    if k.p is stored and k.q is read:
        return g, k.phi, k.psi, read
    if k.q is stored and k.p is read:
        return g, k.psi, k.phi, read
    raise _unknown(store, [k])


def _unknown(store: Store, factors: list[Tensor]) -> UserError:
    expectation = any(isinstance(f, Expectation) for f in factors)
    why = "an expectation of three latents or more" if expectation else "a product that has no series of one kernel"
    return UserError(f"the atoms of {store.weight!r} enter {why}, which cannot be folded yet; train with mode exact")


def _vanishes(profile: Expr) -> bool:
    """Whether its mean over a centred Gaussian is zero."""
    return profile == 0 or kernel(profile, sp.Integer(1), ONE, ZERO, ZERO) is ZERO


def least_useful_degree(store: Store) -> int:
    """The first degree from 1 on that the function of a store has."""
    for k in range(1, 12):
        if not _vanishes(derivative(store.function, k)):
            return k
    raise InternalError(f"{store.fn} has no Mehler coefficient up to degree 11")
