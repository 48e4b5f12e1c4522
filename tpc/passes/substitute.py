"""Replace the leaves of a computation: data by other data, weights by expressions of the same meaning.

Images of leaves may have further axes, which broadcast by name, and may vanish: None is the zero vector, and what is
zero with it goes too. Matrices become a matrix and the terms that are added to its products.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import sympy as sp

from tpc.errors import InternalError
from tpc.program import ir, tensor
from tpc.program.axes import Axes, Axis, fresh, union, without
from tpc.program.functions import argument
from tpc.program.ir import Matrix, Vector
from tpc.program.node import Node
from tpc.program.rewrite import Recursion
from tpc.program.tensor import ONE, ZERO, Tensor

Part: TypeAlias = tuple[Tensor, Vector, Axes]  # of a linear combination: coefficient, vector, axes summed over


@dataclass(frozen=True)
class Increment:
    """W ↦ W + (1/n) Σ_over coefficient · y xᵀ"""

    coefficient: Tensor
    y: Vector
    x: Vector
    over: Axes

    def freshened(self, taken: Axes) -> Increment:
        """The same with bound axes that none of `taken` are."""
        new = _apart(self.over, taken, union(self.coefficient.axes, self.y.axes, self.x.axes))
        return self.renamed(new)

    def renamed(self, new: Mapping[Axis, Axis]) -> Increment:
        """The same with axes renamed, free and bound alike."""
        pairs = dict(new)
        y, x = ir.rename_vector(self.y, pairs), ir.rename_vector(self.x, pairs)
        return Increment(tensor.rename(self.coefficient, pairs), y, x, tuple(pairs.get(a, a) for a in self.over))


@dataclass
class Substitution:
    """The image of every node under images of leaves; remembers what it has seen.

    `leaves` has the images of data and weights, `increments` what is added to matrices, `axes` new names of axes.
    """

    leaves: Mapping[Node, Node | None] = field(default_factory=dict)
    increments: Mapping[Node, tuple[Increment, ...]] = field(default_factory=dict)
    axes: Mapping[Axis, Axis] = field(default_factory=dict)
    _known: dict[Node, Node | None] = field(default_factory=dict)
    _recall: Recursion = field(default_factory=Recursion)

    def tensor(self, n: Tensor) -> Tensor:
        """The image of a finite tensor."""
        made = self._image(n)
        assert isinstance(made, Tensor)
        return made

    def vector(self, n: Vector) -> Vector | None:
        """The image of a vector, None if it is zero."""
        made = self._image(n)
        assert made is None or isinstance(made, Vector)
        return made

    def known(self, n: Node) -> Node | None:
        """The image of a node that came up so far, None if it did not or is zero."""
        return self._known.get(n)

    def _image(self, n: Node) -> Node | None:
        return self._recall(self._known, n, self._found)

    def _found(self, n: Node) -> Node | None:
        made = self.leaves[n] if n in self.leaves else self._rebuilt(n)
        return ZERO if made is None and isinstance(n, Tensor) else made

    def along(self, axes: Axes) -> Axes:
        """Axes under their new names."""
        return tuple(self.axes.get(a, a) for a in axes)

    def _rebuilt(self, n: Node) -> Node | None:
        match n:
            case tensor.Size():
                return tensor.Size(self.axes.get(n.axis, n.axis))
            case tensor.Map():
                return tensor.elementwise(n.fn, [self.tensor(a) for a in n.args])
            case tensor.Add():
                return tensor.add(self.tensor(t) for t in n.terms)
            case tensor.Contract():
                return tensor.contract((self.tensor(f) for f in n.factors), self.along(n.over))
            case tensor.LogSumExp():
                return _log_sum_exp(self.tensor(n.arg), self.axes.get(n.over, n.over))
            case tensor.Rename():
                return tensor.rename(self.tensor(n.arg), self._renaming(n.pairs))
            case tensor.Broadcast():
                return tensor.broadcast(self.tensor(n.arg), self.along(n.along))
            case tensor.StopGradient():
                return tensor.stop_gradient(self.tensor(n.arg))
            case ir.Moment():
                fn, xs = self._arguments(n.fn, n.xs)
                if not xs and fn.has(argument(0)):
                    raise InternalError("a moment of nothing")
                return ir.moment(fn, xs, [self.tensor(t) for t in n.thetas]) if fn != 0 else None
            case ir.Nonlin():
                fn, xs = self._arguments(n.fn, n.xs)
                if fn != 0 and not xs:
                    raise InternalError(f"the nonlinearity {n.fn} of a zero vector is not zero")
                return ir.nonlin(fn, xs, [self.tensor(t) for t in n.thetas]) if fn != 0 else None
            case ir.LinComb():
                return self._lincomb(n)
            case ir.MatMul():
                return self._matmul(n)
            case ir.RenameVector():
                x = self.vector(n.arg)
                return None if x is None else ir.rename_vector(x, self._renaming(n.pairs))
            case ir.Project():
                x = self.vector(n.arg)
                return None if x is None else ir.Project(x)
            case ir.StopGradientVector():
                x = self.vector(n.arg)
                return None if x is None else ir.stop_gradient(x)
            case Tensor() | Vector() | Matrix() if not n.operands:
                return n
        raise InternalError(f"no rule to substitute in {type(n).__name__}")

    def _renaming(self, pairs: tuple[tuple[Axis, Axis], ...]) -> dict[Axis, Axis]:
        return {self.axes.get(a, a): self.axes.get(b, b) for a, b in pairs}

    def _arguments(self, fn: sp.Expr, xs: tuple[Vector, ...]) -> tuple[sp.Expr, list[Vector]]:
        """fn of the arguments that are not zero."""
        images = [self.vector(x) for x in xs]
        kept = [x for x in images if x is not None]
        if len(kept) < len(images):
            fn = fn.subs({argument(i): 0 for i, x in enumerate(images) if x is None})
            places = [i for i, x in enumerate(images) if x is not None]
            fn = fn.xreplace({argument(i): argument(k) for k, i in enumerate(places)})
        return fn, kept

    def _lincomb(self, n: ir.LinComb) -> Vector | None:
        parts: list[Part] = []
        for c, x, over in n.terms:
            image = self.vector(x)
            if image is None:
                continue
            coefficient = self.tensor(c)
            whole: Part = (coefficient, image, self.along(over))
            inside = image.terms if x in self.leaves and isinstance(image, ir.LinComb) else None
            for part in [whole] if inside is None else [within(whole, p) for p in inside]:
                parts.append(_sized(part))
        return ir.lincomb(parts)

    def _matmul(self, n: ir.MatMul) -> Vector | None:
        x = self.vector(n.x)
        if x is None:
            return None
        transposed = isinstance(n.matrix, ir.Transpose)
        w = n.matrix.arg if isinstance(n.matrix, ir.Transpose) else n.matrix
        base = self.leaves.get(w, w)
        if not isinstance(base, Matrix):
            raise InternalError(f"the image of the matrix {w!r} is not a matrix")
        parts: list[Part] = [(ONE, ir.MatMul(ir.transpose(base) if transposed else base, x), ())]
        for i in self.increments.get(w, ()):
            i = i.freshened(x.axes)
            into, out = (i.y, i.x) if transposed else (i.x, i.y)
            parts.append((tensor.contract((i.coefficient, ir.moment(ir.PRODUCT, (into, x)))), out, i.over))
        return ir.lincomb(parts)


def within(outer: Part, inner: Part) -> Part:
    """c · (Σ c' x') as one part."""
    c, _, over = outer
    d, x, bound = freshened(inner, union(c.axes, over))
    return tensor.contract((c, d)), x, (*over, *bound)


def freshened(part: Part, taken: Axes) -> Part:
    """The same part with bound axes that none of `taken` are."""
    c, x, over = part
    new = _apart(over, taken, union(c.axes, x.axes))
    return tensor.rename(c, new), ir.rename_vector(x, new), tuple(new.get(a, a) for a in over)


def _apart(bound: Axes, taken: Axes, own: Axes) -> dict[Axis, Axis]:
    """New names for bound axes that are taken."""
    new: dict[Axis, Axis] = {}
    for a in bound:
        if a in taken:
            new[a] = fresh(a.primed(), union(taken, own, bound, new.values()))
    return new


def _sized(part: Part) -> Part:
    """A part that sums axes it has: a sum over an absent one is its length."""
    c, x, over = part
    missing = without(over, union(c.axes, x.axes))
    return tensor.contract((c, *(tensor.size(a) for a in missing))), x, without(over, missing)


def _log_sum_exp(x: Tensor, over: Axis) -> Tensor:
    if over in x.axes:
        return tensor.LogSumExp(x, over)
    return tensor.add((x, tensor.elementwise(sp.log(argument(0)), (tensor.size(over),))))
