"""Gradients as sums of outer products, so that they can be added to a weight without an array of their size."""

from __future__ import annotations

from dataclasses import dataclass

from tpc.passes.project import outers
from tpc.program import ir
from tpc.program.axes import Axes
from tpc.program.ir import Matrix, Vector
from tpc.program.node import Node
from tpc.program.program import AnyWeight, Program
from tpc.program.rewrite import Rewriter
from tpc.program.tensor import ONE, Tensor


@dataclass(frozen=True)
class OuterProduct:
    """Σ_over left ⊗ right; a scalar `left` has the weight's own finite axes besides."""

    left: Tensor | Vector
    right: Vector
    over: Axes


def products(w: AnyWeight, grad: Node) -> tuple[tuple[OuterProduct, ...], tuple[Tensor | Vector, ...]]:
    """The gradient of a weight as outer products and what is none; for a matrix there is a factor 1/n in front.

    Projections go from sums to their terms: Π Σ c x = Σ c Π x.
    """
    if isinstance(grad, Matrix):
        return tuple(OuterProduct(o.y, o.x, o.over) for o in outers(grad)), ()
    assert isinstance(grad, Tensor | Vector)
    if not isinstance(w, ir.VectorWeight) or not w.shape:
        return (), (grad,)
    assert isinstance(grad, Vector)
    inner = grad.arg if isinstance(grad, ir.Project) else grad
    found: list[OuterProduct] = []
    rest: list[Vector] = []
    for c, x, over in inner.terms if isinstance(inner, ir.LinComb) else ((ONE, inner, ()),):
        vector = ir.Project(x) if inner is not grad else x
        spans = set(c.axes) <= {*over, *w.shape} and set(x.axes) <= set(over) and set(w.shape) <= set(c.axes)
        if spans:
            found.append(OuterProduct(c, vector, over))
        else:
            term = ir.lincomb([(c, vector, over)])
            rest += [] if term is None else [term]
    return tuple(found), tuple(rest)


def unprojected(program: Program) -> Program:
    """The program with Π = 1: that of networks that do not project."""
    image = _Unprojected()
    outputs = tuple((name, image(value)) for name, value in program.outputs)
    sources = {image.known[n]: line for n, line in program.sources.items() if n in image.known}
    return Program(program.name, outputs, sources)


class _Unprojected(Rewriter[Node]):
    def rule(self, n: Node) -> Node:
        return self(n.arg) if isinstance(n, ir.Project | ir.Learned) else self.rebuilt(n)


def learns_vectors(program: Program) -> bool:
    """Whether the network itself takes steps in a weight with a width axis on its left."""
    return any(isinstance(n, ir.Learned | ir.Project) for n in program.nodes)
