"""Limits that are wrong on purpose: the derived graph with one thing changed, beside networks that are right."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import sympy as sp
from sympy import Expr

from tpc.compiler import Limit
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Kernel
from tpc.limits.store import Accumulate, Append, Update
from tpc.program import tensor
from tpc.program.node import Node, rebuild, topological
from tpc.program.program import Program
from tpc.program.tensor import Add, Constant, Contract, Tensor
from tpc.tasks import check

Change = Callable[[LimitGraph], LimitGraph]


def sabotaged(limit: Limit, change: Change, loss: str = "cross_entropy") -> Limit:
    """The limit of the same program with another graph: models follow it, networks follow the program."""
    for name in ("",) if limit.is_kernel else {"cross_entropy": 0, loss: 0}:
        program, graph = limit._stage(name)
        limit._derived[name] = (program, change(graph))
    return limit


def with_nodes(graph: LimitGraph, image: Callable[[Tensor], Tensor]) -> LimitGraph:
    """The graph with `image` of every node in its place, after that of its operands."""
    images: dict[Node, Node] = {}
    for n in topological(graph.roots):
        images[n] = image(rebuild(n, lambda operand: images[operand]))

    def of(t: Tensor) -> Tensor:
        return images[t]

    def update(u: Update) -> Update:
        if isinstance(u, Accumulate):
            return replace(u, gradient=of(u.gradient))
        return replace(
            u, coefficient=of(u.coefficient), columns=tuple(map(of, u.columns)), thetas=tuple(map(of, u.thetas))
        )

    return replace(
        graph,
        outputs=tuple((name, of(t)) for name, t in graph.outputs),
        updates=tuple((name, tuple(map(update, updates))) for name, updates in graph.updates),
        norms=tuple((name, of(t)) for name, t in graph.norms),
        sources={},
    )


def kernel_scaled(place: int, factor: float = 1.02) -> Change:
    """The evaluations of one kernel V[φ,ψ] times a factor, the one at `place` in `kernels_of_steps`."""

    def change(graph: LimitGraph) -> LimitGraph:
        chosen = kernels_of_steps(graph)[place]

        def scaled(t: Tensor) -> Tensor:
            if isinstance(t, Kernel) and (t.phi, t.psi) == chosen:
                return tensor.contract((Constant(sp.Float(factor)), t))
            return t

        return with_nodes(graph, scaled)

    return change


def kernels_of_steps(graph: LimitGraph) -> list[tuple[Expr, Expr]]:
    """The pairs (φ, ψ) of the kernels that logits and updates need, in order of first use; norms need more."""
    needed = topological([graph["logits"], *replace(graph, outputs=(), norms=()).roots])
    return list(dict.fromkeys((n.phi, n.psi) for n in needed if isinstance(n, Kernel)))


def gradient_of(weight: str, change: Callable[[Tensor], Tensor]) -> Change:
    """The gradient of one weight changed, where it is used to update it."""

    def update(u: Update) -> Update:
        if isinstance(u, Append):
            return replace(u, coefficient=change(u.coefficient))
        return replace(u, gradient=change(u.gradient))

    def changed(graph: LimitGraph) -> LimitGraph:
        found = dict(graph.updates)
        assert weight in found, f"expected a weight among {', '.join(found)}, got {weight}"
        found[weight] = tuple(map(update, found[weight]))
        return replace(graph, updates=tuple(found.items()), sources={})

    return changed


def times(factor: float) -> Callable[[Tensor], Tensor]:
    """The tensor times a number."""
    return lambda t: tensor.contract((Constant(sp.Float(factor)), t))


def without_multiplier(t: Tensor) -> Tensor:
    """A product without its constant factor."""
    assert isinstance(t, Contract)
    assert any(isinstance(f, Constant) for f in t.factors)
    return tensor.contract([f for f in t.factors if not isinstance(f, Constant)], t.over)


def term_dropped(graph: LimitGraph, place: int, term: int) -> LimitGraph:
    """The graph without one term of the sum at `place` among those of the updates."""
    chosen = sums_of_updates(graph)[place]
    return with_nodes(graph, lambda t: _without_term(t, term) if t is chosen else t)


def sums_of_updates(graph: LimitGraph) -> list[Add]:
    """The sums that updates are computed from, and outputs are not."""
    outputs = set(topological([t for _, t in graph.outputs]))
    return [n for n in graph.nodes if isinstance(n, Add) and n not in outputs]


def _without_term(t: Add, term: int) -> Tensor:
    kept = [x for i, x in enumerate(t.terms) if i != term]
    return tensor.broadcast(tensor.add(kept), t.axes)


@contextmanager
def limits_changed(change: Change) -> Iterator[None]:
    """Every limit that a check derives in this block is changed."""
    right = check.compile_program

    def wrong(program: Program, limit: str = "pi") -> Limit:
        return sabotaged(right(program, limit), change, "mse")

    check.compile_program = wrong
    try:
        yield
    finally:
        check.compile_program = right
