"""Contraction order: every sum of a product becomes a tree of operations on two tensors.

Greedy by the size of the intermediate result. Equal sub-products are the same node, so they are computed once.
"""

from __future__ import annotations

from itertools import combinations
from math import prod

from tpc.lower.instructions import Lowered
from tpc.program import tensor
from tpc.program.axes import Axes, Axis, union, without
from tpc.program.rewrite import Rewriter
from tpc.program.tensor import Contract, Tensor

_TYPICAL = {"atom": 100_000, "rank": 400, "power": 80_000, "sample": 16, "support": 16, "feature": 3000}


def typical_size(axis: Axis) -> int:
    """A size to plan with while the real one is unknown."""
    return axis.size or _TYPICAL.get(axis.base if axis.role == "finite" else axis.role, 64)


def volume(axes: Axes) -> int:
    return prod(typical_size(a) for a in axes)


class Planner(Rewriter[Tensor]):
    """Rewrites tensors into two-operand contractions."""

    def rule(self, x: Tensor) -> Tensor:
        return _ordered([self(f) for f in x.factors], x.over) if isinstance(x, Contract) else self.rebuilt(x)


def planned(lowered: Lowered) -> Lowered:
    """The stage: every output of two-operand contractions."""
    return lowered.rewritten(Planner())


def _ordered(factors: list[Tensor], over: Axes) -> Tensor:
    inside = [f for f in factors if set(f.axes) & set(over)]
    outside = [f for f in factors if not set(f.axes) & set(over)]
    if over:
        inside = [_contracted(inside, over)]
    # scalars and small tensors first, so that large ones are touched once
    rest = sorted(outside + inside, key=lambda f: volume(f.axes))
    result = rest[0]
    for f in rest[1:]:
        result = Contract((result, f), ())
    return result


def _contracted(factors: list[Tensor], over: Axes) -> Tensor:
    """Multiply pair by pair, summing each axis as soon as no other factor has it."""
    factors = [_summed_alone(f, factors, over) for f in factors]
    while len(factors) > 1:
        best: tuple[tuple[int, int], int, int, Axes] | None = None
        for i, j in combinations(range(len(factors)), 2):
            others = [f for k, f in enumerate(factors) if k not in (i, j)]
            joint = union(factors[i].axes, factors[j].axes)
            done = tuple(a for a in over if a in joint and all(a not in o.axes for o in others))
            cost = (volume(without(joint, done)), volume(joint))
            if best is None or cost < best[0]:
                best = (cost, i, j, done)
        assert best is not None
        _, i, j, done = best
        made = Contract((factors[i], factors[j]), done)
        factors = [f for k, f in enumerate(factors) if k not in (i, j)] + [made]
    (result,) = factors
    left = tuple(a for a in over if a in result.axes)
    return Contract((result,), left) if left else result


def _summed_alone(f: Tensor, factors: list[Tensor], over: Axes) -> Tensor:
    """Sum the axes that only this factor has; a sum of a product goes over them, too."""
    own = tuple(a for a in over if a in f.axes and all(a not in g.axes for g in factors if g is not f))
    repeated = sum(g is f for g in factors) > 1
    if not own or repeated or len(factors) == 1:
        return f
    if isinstance(f, Contract) and f.over:
        return tensor.Contract(f.factors, f.over + own)
    return tensor.Contract((f,), own)
