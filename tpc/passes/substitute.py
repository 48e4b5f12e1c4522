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
from tpc.program.axes import Axes, Axis, union, without
from tpc.program.functions import argument
from tpc.program.ir import Matrix, Vector
from tpc.program.node import Node, remade
from tpc.program.renaming import freshened, renamed
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
        return renamed(axes, self.axes)

    def _rebuilt(self, n: Node) -> Node | None:
        match n:
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
            case Vector() if n.vectors and all(self.vector(x) is None for x in n.vectors):
                return None
        return remade(n, self._nonzero, self.axes)

    def _nonzero(self, n: Node) -> Node:
        made = self._image(n)
        if made is None:
            raise InternalError(f"no rule to substitute zero for {n!r}")
        return made

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
            i = freshened(i, i.over, x.axes)
            into, out = (i.y, i.x) if transposed else (i.x, i.y)
            parts.append((tensor.contract((i.coefficient, ir.moment(ir.PRODUCT, (into, x)))), out, i.over))
        return ir.lincomb(parts)


def within(outer: Part, inner: Part) -> Part:
    """c · (Σ c' x') as one part."""
    c, _, over = outer
    d, x, bound = freshened(inner, inner[2], union(c.axes, over))
    return tensor.contract((c, d)), x, (*over, *bound)


def _sized(part: Part) -> Part:
    """A part that sums axes it has: a sum over an absent one is its length."""
    c, x, over = part
    missing = without(over, union(c.axes, x.axes))
    return tensor.contract((c, *(tensor.size(a) for a in missing))), x, without(over, missing)
