"""Project the gradients to the span of each space's Ω, and measure them.

Projection is what makes the limit finite-dimensional (Yang, Santacroce, Hu 2022, §3): the gradient of everything
whose output lives in a space is multiplied by Π from the left. A readout's output is finite, so it is left alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from tpc.errors import InternalError
from tpc.program import ir, tensor
from tpc.program.axes import union
from tpc.program.ir import Matrix, Vector
from tpc.program.node import Node
from tpc.program.program import Program
from tpc.program.renaming import freshened
from tpc.program.rewrite import Rewriter
from tpc.program.tensor import Tensor

PREFIX = "grad:"


def project(program: Program) -> Program:
    """Project every "grad:<weight>", and the gradients that the network itself takes steps along."""
    image = _Projected()
    roles = {w.name: getattr(w, "role", "") for w in program.weights}
    outputs = tuple(
        (name, _projected(image(value), roles[name.removeprefix(PREFIX)]) if name.startswith(PREFIX) else image(value))
        for name, value in program.outputs
    )
    sources = {image.known.get(n, n): line for n, line in program.sources.items()}
    return replace(program, outputs=outputs, sources=sources)


class _Projected(Rewriter[Node]):
    def rule(self, n: Node) -> Node:
        return ir.Project(cast(Vector, self(n.arg))) if isinstance(n, ir.Learned) else self.rebuilt(n)


def _projected(grad: Node, role: str) -> Node:
    if isinstance(grad, Matrix):
        return ir.matrix_sum([ir.Outer(ir.Project(o.y), o.x, o.over) for o in outers(grad)])
    if isinstance(grad, Vector) and role == "input":
        return ir.Project(grad)
    return grad


def outers(grad: Matrix) -> tuple[ir.Outer, ...]:
    """The outer products a matrix gradient is the sum of."""
    terms = grad.terms if isinstance(grad, ir.MatrixSum) else (grad,)
    found = tuple(t for t in terms if isinstance(t, ir.Outer))
    if len(found) != len(terms):
        raise InternalError("a matrix gradient must be a sum of outer products")
    return found


def norms(program: Program) -> Program:
    """Add "norm2:<weight>", the squared norm of each gradient in function space.

    For a matrix (1/n) Σ_i y_i x_iᵀ it is Σ_ij ⟨y_i, y_j⟩⟨x_i, x_j⟩/n²; for a vector weight |d|²/n over its axes.
    """
    extra = [
        (f"norm2:{name.removeprefix(PREFIX)}", norm2(value))
        for name, value in program.outputs
        if name.startswith(PREFIX)
    ]
    return program.with_outputs(*extra)


def norm2(grad: Node) -> Tensor:
    """The squared norm of a gradient."""
    if isinstance(grad, Matrix):
        parts = outers(grad)
        return tensor.add(_inner(a, b) for a in parts for b in parts)
    if isinstance(grad, Vector):
        return tensor.contract((ir.moment(ir.PRODUCT, (grad, grad)),), grad.axes)
    assert isinstance(grad, Tensor)
    return tensor.contract((grad, grad), grad.axes)


def _inner(a: ir.Outer, b: ir.Outer) -> Tensor:
    y, x, over = freshened((b.y, b.x, b.over), b.over, union(a.over, b.over))
    left, right = ir.moment(ir.PRODUCT, (a.y, y)), ir.moment(ir.PRODUCT, (a.x, x))
    return tensor.contract((left, right), union(left.axes, right.axes, a.over, over))
