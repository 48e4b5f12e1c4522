"""Second moments of a program's vectors at initialization, by the Master Theorem (Yang, Tensor Programs I, II).

A G-vector h becomes a Gaussian Z^h, an X-vector φ(h, …) becomes φ(Z^h, …), and a moment (1/n) Σ_α ψ(x_α) becomes the
number E ψ(Z^x). For W with N(0, σ²/n) entries Cov(Z^{Wx}, Z^{Wy}) = σ² E Z^x Z^y, and distinct matrices are
independent; so are W and Wᵀ where Wᵀ occurs in gradients only (gradient independence). One rule per instruction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import reduce, singledispatchmethod
from operator import or_

import sympy as sp

from tpc.errors import InternalError
from tpc.limits.expect import gaussian_mean
from tpc.limits.ties import Ties, is_sum, seen_base, unrenamed, weight_of
from tpc.limits.views import contracted, identity, renamed_factors, through, view
from tpc.passes.normal import Normaliser, Term
from tpc.passes.per_sample import Randomness
from tpc.passes.substitute import Part
from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, Axes, Axis, apart, union, without
from tpc.program.functions import argument
from tpc.program.ir import Vector, theta
from tpc.program.node import Node, remade
from tpc.program.program import Program
from tpc.program.renaming import freshened
from tpc.program.rewrite import Recursion
from tpc.program.shift import ShiftedVector, UnshiftedVector
from tpc.program.tensor import ONE, ZERO, Broadcast, Rename, StopGradient, Tensor, Weight


class SecondMoments:
    """One derivation for a program of `single_output`, with or without its gradients; remembers what it has found.

    Two samples are two axes: `sample` of one vector and its primed copy of the other. What depends on the second
    sample alone is always written as the same thing of the first, renamed.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.normal = Normaliser(program, "kernel limits")
        self._tensors: dict[Tensor, Tensor] = {}
        self._covariances: dict[tuple[Vector, Vector], Tensor] = {}
        self._seconds: dict[tuple[Vector, Vector], Tensor] = {}
        self._supports: dict[Vector, int] = {}
        self._kinds_known: dict[Vector, int] = {}
        self._bits: dict[Node, int] = {}
        self._heights: dict[Vector, int] = {}
        self._sums: dict[Vector, tuple[Part, ...]] = {}
        self._is_random = Randomness()
        self._recall = Recursion()
        self.ties = Ties(self._all_parts, self.terms)

    @property
    def sources(self) -> dict[Tensor, Node]:
        """The program's instruction that a tensor of the limit is the limit of, or a second moment of."""
        images: dict[Node, list[Tensor]] = {}
        for (x, _), value in (self._covariances | self._seconds).items():
            images.setdefault(unrenamed(x)[0], []).append(value)
        for s, value in self._tensors.items():
            images.setdefault(s, []).append(value)
        found: dict[Tensor, Node] = {}
        for n in self.program.nodes:  # the first of several with one limit
            for value in images.get(n, ()):
                found.setdefault(value, n)
        return found

    # --- finite tensors ------------------------------------------------------------------------------------------

    def tensor(self, n: Tensor) -> Tensor:
        """The limit of a scalar that is not random.

        In units of the gradient's size, n^(-1/2) per neuron, an output and the bias of one are 0.
        """
        return self._recall(self._tensors, n, self._tensor)

    @singledispatchmethod
    def _tensor(self, n: Tensor) -> Tensor:
        made = remade(n, lambda m: self.tensor(m) if isinstance(m, Tensor) else m)
        assert isinstance(made, Tensor)
        return made

    @_tensor.register
    def _(self, n: Weight) -> Tensor:
        return ZERO

    @_tensor.register
    def _(self, n: Rename) -> Tensor:
        return renamed_factors(self.tensor(n.arg), dict(n.pairs))

    @_tensor.register
    def _(self, n: Broadcast | StopGradient) -> Tensor:
        return self.tensor(n.arg)  # values broadcast by name anyway, and a sum over an absent axis is its length

    @_tensor.register
    def _(self, n: ir.Moment) -> Tensor:
        # (1/n) Σ fn(x) → E fn(Z^x), which is 0 for gradients: they are linear in independent Gaussians
        if self._is_random(n):
            return ZERO
        if n.fn == argument(0) ** 2:
            return self.second(n.xs[0], n.xs[0])
        terms = self.normal.applied(n.fn, n.xs, n.thetas, n)
        return tensor.add(self._expected(t, t.fn, t.gs, t.thetas) for t in terms if not t.leaves)

    def _expected(self, t: Term, fn: sp.Expr, gs: tuple[Vector, ...], thetas: tuple[Tensor, ...]) -> Tensor:
        coefficient = self.tensor(t.coefficient)
        if coefficient is ZERO:
            return ZERO
        value = gaussian_mean(fn, gs, [self.tensor(p) for p in thetas], self.covariance)
        return tensor.contract((coefficient, value), t.over)

    # --- vectors ---------------------------------------------------------------------------------------------------

    def second(self, x: Vector, y: Vector) -> Tensor:
        """E Z^x Z^y, along the axes of both."""
        if _is_second_sample(x):
            if _is_second_sample(y):
                return _of_first(x, y, self.second)
            x, y = y, x
        if not self._kinds(x) & self._kinds(y):
            return ZERO
        return self._recall(self._seconds, (x, y), self._second)

    def _kinds(self, x: Vector) -> int:
        """What the terms of a vector are multiples of, as bits: a weight of the gradients, or none (the first bit).

        Terms of different kinds have no second moment: a gradient's Gaussians are independent of all else.
        """
        return self._recall(self._kinds_known, x, self._kinds_of)

    def _kinds_of(self, x: Vector) -> int:
        inner, _ = unrenamed(x)
        if isinstance(inner, ShiftedVector | UnshiftedVector):
            return self._kinds(inner.arg)
        if isinstance(inner, ir.LinComb) and inner.kind != "G":
            return reduce(or_, (self._kinds(y) for _, y, _ in inner.terms))
        return reduce(or_, (self._kind(t) for t in self.normal.terms(inner)), 0)

    def _kind(self, t: Term) -> int:
        if len(t.leaves) > 1:
            return -1
        if not t.leaves:
            return 1
        weight = weight_of(seen_base(t.leaves[0]))
        return 2 << self._bits.setdefault(weight, len(self._bits))

    def _second(self, pair: tuple[Vector, Vector]) -> Tensor:
        x, y = pair
        seen = through(x, y, self.second)
        if seen is not None:
            return seen
        parts = []
        for c, a, over in self._summands(x):
            taken = union(over, c.axes, a.axes, x.axes)
            for part in self._summands(y):
                d, b, other = self.ties.joined(a, _apart(part, taken, y.axes))
                inside = self._products(a, b) if a is x and b is y else self.second(a, b)
                parts.append(contracted((c, d, inside), union(over, other)))
        return tensor.add(parts)

    def _summands(self, x: Vector) -> list[Part]:
        """A sum of X-vectors as its terms, so that what they have in common is derived once."""
        return [(ONE, x, ())] if x.kind == "G" else self._all_parts(x)

    def _all_parts(self, x: Vector) -> list[Part]:
        """The terms of any sum that are not 0 in the limit, with the limits of their coefficients."""
        if not is_sum(x):
            return [(ONE, x, ())]
        return [(value, y, over) for c, y, over in self._terms_of(x) if (value := self.tensor(c)) is not ZERO]

    def _products(self, x: Vector, y: Vector) -> Tensor:
        right = self.terms(y)
        return tensor.add(
            self._product(s, self.ties.joined_term(s, freshened(t, t.over, s.axes)))
            for s in self.terms(x)
            for t in right
        )

    def terms(self, x: Vector) -> tuple[Term, ...]:
        """The normal form of a vector without terms that are 0 in the limit."""
        return tuple(t for t in self.normal.terms(x) if self.tensor(t.coefficient) is not ZERO)

    def _product(self, s: Term, t: Term) -> Tensor:
        """E of the product of two terms; their G-vectors stay apart even where they are the same."""
        if len(s.leaves) != len(t.leaves) or len(s.leaves) > 1:
            if len(s.leaves) + len(t.leaves) == 1:
                return ZERO  # E of a gradient's Gaussian, which nothing else depends on
            raise InternalError("a gradient is linear in the gradients of what comes after it")
        shift: dict[sp.Expr, sp.Expr] = {argument(i): argument(i + len(s.gs)) for i in range(len(t.gs))}
        shift |= {theta(j): theta(j + len(s.thetas)) for j in range(len(t.thetas))}
        factors = [self.tensor(s.coefficient), self.tensor(t.coefficient)]
        factors += [self.leaves(a, b) for a, b in zip(s.leaves, t.leaves)]
        if ZERO in factors:
            return ZERO
        thetas = [self.tensor(p) for p in (*s.thetas, *t.thetas)]
        factors.append(gaussian_mean(s.fn * t.fn.xreplace(shift), (*s.gs, *t.gs), thetas, self.covariance))
        return contracted(factors, union(s.over, t.over))

    def leaves(self, x: Vector, y: Vector) -> Tensor:
        """The covariance of two Gaussians that are seen of weights, Wx or Wᵀdx; in gradients they are leaves.

        Components of a weight are independent of each other.
        """
        seen = through(x, y, self.leaves)
        if seen is not None:
            return seen
        (v, new), (w, other) = unrenamed(x), unrenamed(y)
        a, b = weight_of(v), weight_of(w)
        if a is not b:
            return ZERO
        places = [(new.get(k, k), other.get(k, k)) for k in without(a.axes, (SAMPLE,))]
        same = {right: left for left, right in places if left != right}
        factors = [identity(left, right) for right, left in same.items()]
        if isinstance(v, ir.VectorWeight):
            return tensor.contract((variance_of_entries(v), *factors))
        assert isinstance(v, ir.MatMul)
        assert isinstance(w, ir.MatMul)
        y = ir.rename_vector(ir.rename_vector(w.x, other), same)
        inside = self.second(ir.rename_vector(v.x, new), y)
        return tensor.contract((variance_of_entries(_weight(v)), inside, *factors))

    def covariance(self, g: Vector, h: Vector) -> Tensor:
        """Cov(Z^g, Z^h) of two G-vectors."""
        if _is_second_sample(g):
            if _is_second_sample(h):
                return _of_first(g, h, self.covariance)
            g, h = h, g
        if not self._weights(g) & self._weights(h):
            return ZERO
        return self._recall(self._covariances, (g, h), self._covariance)

    def _weights(self, g: Vector) -> int:
        """The weights that a G-vector is a linear function of, as bits; vectors that share none are independent."""
        return self._recall(self._supports, g, self._weights_of)

    def _weights_of(self, g: Vector) -> int:
        match g:
            case ir.VectorWeight() | ir.MatMul():
                w = g if isinstance(g, ir.VectorWeight) else g.matrix
                return 1 << self._bits.setdefault(w, len(self._bits))
            case ir.RenameVector() | ir.StopGradientVector() | ShiftedVector() | UnshiftedVector():
                return self._weights(g.arg)
            case ir.LinComb():
                return reduce(or_, (self._weights(x) for _, x, _ in g.terms))
        return -1

    def _covariance(self, pair: tuple[Vector, Vector]) -> Tensor:
        g, h = pair
        if _is_seen_sum(g) or _is_seen_sum(h):
            seen = through(g, h, self.covariance)
            assert seen is not None
            return seen
        left, right = self._single(g), self._single(h)
        if left is None and (right is not None or not self._is_first(h, g)):
            return tensor.add(self._scaled(part, g, h, first=True) for part in self._terms_of(g))
        if right is None:
            return tensor.add(self._scaled(part, h, g, first=False) for part in self._terms_of(h))
        assert left is not None
        (c, x, over), (d, y, other) = left, right
        taken = union(over, c.axes, x.axes, g.axes)
        return self._pair((self.tensor(c), x, over), _apart((self.tensor(d), y, other), taken, h.axes))

    def _terms_of(self, g: Vector) -> tuple[Part, ...]:
        if g not in self._sums:
            self._sums[g] = _sum(g)
        return self._sums[g]

    def _has_term(self, h: Vector, g: Vector) -> bool:
        base, _ = unrenamed(g)
        return any(unrenamed(y)[0] is base for _, y, _ in self._terms_of(h))

    def _single(self, g: Vector) -> Part | None:
        """A base with its coefficient: what covariances are defined for; None for sums of others."""
        if _is_base(g):
            return ONE, g, ()
        parts = self._terms_of(g)
        return parts[0] if len(parts) == 1 and _is_base(parts[0][1]) else None

    def _is_first(self, h: Vector, g: Vector) -> bool:
        """Whether of two sums h is taken apart first: so c·y is not multiplied out, and few pairs come up."""
        if len(self._terms_of(g)) == 1:
            return self._height(h) > self._height(g)
        return len(self._terms_of(h)) == 1 or self._has_term(h, g)

    def _height(self, g: Vector) -> int:
        """How many sums of sums a G-vector is."""
        return self._recall(self._heights, g, self._height_of)

    def _height_of(self, g: Vector) -> int:
        if _is_base(g):
            return 0
        seen = view(g)
        inside = [seen.arg] if seen is not None else [x for _, x, _ in self._terms_of(g)]
        return 1 + max(map(self._height, inside))

    def _scaled(self, part: Part, of: Vector, other: Vector, first: bool) -> Tensor:
        """The covariance of one term of a sum."""
        if not self._weights(part[1]) & self._weights(other):
            return ZERO
        c, x, over = _apart(part, other.axes, of.axes)
        if self.tensor(c) is ZERO:
            return ZERO
        whole = x
        if _is_base(x):
            whole, c, over = ir.LinComb(((c, x, over),)), ONE, ()  # not x alone: its axes may be bound
        inside = self.covariance(whole, other) if first else self.covariance(other, whole)
        return tensor.contract((self.tensor(c), inside), over)

    def _pair(self, first: Part, second: Part) -> Tensor:
        """Σ over both of the covariance of two parts, whose bound axes differ."""
        c, x, over = first
        d, y, other = self.ties.joined(x, second)  # components of a weight are independent: Σ_ij c_i d_j δ_ij
        return contracted((c, d, self.leaves(x, y)), union(over, other))


def _is_base(x: Vector) -> bool:
    return isinstance(seen_base(x), ir.VectorWeight | ir.MatMul)


def _is_seen_sum(x: Vector) -> bool:
    return view(x) is not None and not _is_base(x)


def _sum(g: Vector) -> tuple[Part, ...]:
    """The terms of a G-vector that is no base."""
    x, new = unrenamed(g)
    if isinstance(x, ir.StopGradientVector):
        return ((ONE, ir.rename_vector(x.arg, new), ()),)
    if not isinstance(x, ir.LinComb):
        raise InternalError(f"{type(x).__name__} is not a Gaussian vector at initialization")
    found = []
    for part in x.terms:
        c, y, over = _apart(part, new.values(), x.axes)
        found.append((renamed_factors(c, new), ir.rename_vector(y, new), over))
    return tuple(found)


def variance_of_entries(w: ir.VectorWeight | ir.MatrixWeight | Weight) -> Tensor:
    """σ² of N(0, σ²/fan-in), the factor of a weight in NTK parametrization; over the fan-in where that is finite."""
    shares = _shares(w) if isinstance(w, ir.VectorWeight) and w.role == "input" else ()
    return tensor.contract((_square(w.std), *shares))


def _square(std: sp.Expr) -> Tensor:
    return tensor.Constant(std**2)


def _shares(w: ir.VectorWeight) -> tuple[Tensor, ...]:
    """1/fan-in of an input-like matrix."""
    return tuple(tensor.elementwise(1 / argument(0), (tensor.size(a),)) for a in without(w.shape, (SAMPLE,)))


def _weight(x: ir.MatMul) -> ir.MatrixWeight:
    w = x.matrix.arg if isinstance(x.matrix, ir.Transpose) else x.matrix
    assert isinstance(w, ir.MatrixWeight)
    return w


def _apart(part: Part, taken: Iterable[Axis], free: Axes) -> Part:
    """A part whose bound axes are none of `taken`."""
    c, x, over = part
    new = apart(over, taken, union(free, c.axes, x.axes))
    return renamed_factors(c, new), ir.rename_vector(x, new), tuple(new.get(a, a) for a in over)


# --- the second sample ---------------------------------------------------------------------------------------------


def second_sample(x: Tensor, shared: Axes = ()) -> Tensor:
    """The same for the second of two samples: its axes primed, but for those `shared` by both."""
    return tensor.rename(x, {a: a.primed() for a in without(x.axes, shared)})


def second_vector(x: Vector, shared: Axes = ()) -> Vector:
    """A vector of the second sample; `shared` axes are those of both."""
    return ir.rename_vector(x, {a: a.primed() for a in without(x.axes, shared)})


def _of_first(x: Vector, y: Vector, moment: Callable[[Vector, Vector], Tensor]) -> Tensor:
    """A moment of the second sample alone: that of the first under the second's names."""
    axes = union(x.axes, y.axes)
    new = {a: Axis(a.name.removesuffix("'"), a.size, a.role) for a in axes if a.name.endswith("'")}
    if len({*new.values(), *without(axes, new)}) < len(axes):
        new = {SAMPLE.primed(): SAMPLE}  # other axes of both names are of one sample
    value = moment(ir.rename_vector(x, new), ir.rename_vector(y, new))
    return tensor.rename(value, {b: a for a, b in new.items()})


def _is_second_sample(x: Vector) -> bool:
    return SAMPLE.primed() in x.axes and SAMPLE not in x.axes
