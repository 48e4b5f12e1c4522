"""Numbers of the equations of a limit: tensors in the order of the listing, then kernels, then updates."""

from __future__ import annotations

from dataclasses import dataclass

from sympy import Expr

from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import State
from tpc.limits.store import Update
from tpc.program.node import Node
from tpc.program.tensor import Constant, Input, Tensor


@dataclass(frozen=True)
class Numbering:
    """The number of every tensor that has an equation, of every kernel (φ, ψ) and of every update."""

    tensors: dict[Tensor, int]
    kernels: dict[tuple[Expr, Expr], int]
    updates: dict[Update, int]


def has_equation(n: Node) -> bool:
    """Whether a tensor is computed; states and data are given, and numbers are written in place."""
    return not isinstance(n, State | Input | Constant)


def numbering(graph: LimitGraph) -> Numbering:
    """The numbers of the equations of a graph, from 1."""
    tensors = [n for n in graph.nodes if has_equation(n)]
    updates = [u for _, us in graph.updates for u in us]
    first, second = len(tensors) + 1, len(tensors) + len(graph.kernels) + 1
    return Numbering(
        {n: k for k, n in enumerate(tensors, 1)},
        {pair: k for k, pair in enumerate(graph.kernels, first)},
        {u: k for k, u in enumerate(updates, second)},
    )
