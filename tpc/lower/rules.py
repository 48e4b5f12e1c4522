"""What holds after the stages of lowering. Every rule gives what is broken: our bug, and not the user's."""

from __future__ import annotations

from collections.abc import Iterator

from tpc.limits.nodes import Expectation, Gram, Kernel, State
from tpc.lower.instructions import Function, Loop, Lowered
from tpc.program.node import topological
from tpc.program.tensor import Constant, Contract, Input, Tensor


def is_consistent(lowered: Lowered) -> Iterator[str]:
    """Instructions find what they take."""
    keys = lowered.guard.keys
    outputs = {name for name, _ in lowered.gradients.outputs} if keys else set()
    for key in keys:
        if key not in outputs:
            yield f"a step takes {key}, which gradients do not give"
    names = [f.name for f in lowered.functions]
    for each in lowered.folds:
        for name in each.functions:
            if name not in names:
                yield f"{each.fold.store.name} is folded by {name}, which is not there"


def is_concrete(lowered: Lowered) -> Iterator[str]:
    """There are no Gram entries and no kernels but tabulated ones, and every contraction sums what its factors have."""
    for t in _tensors(lowered):
        if isinstance(t, Gram | Kernel | Expectation):
            yield f"{t!r} is not tensor arithmetic"
        if isinstance(t, Contract) and any(all(a not in f.axes for f in t.factors) for a in t.over):
            yield f"{t!r} sums over axes that its factors lack"


def is_planned(lowered: Lowered) -> Iterator[str]:
    """Contractions have two operands at most."""
    for t in _tensors(lowered):
        if isinstance(t, Contract) and len(t.factors) > 2:
            yield f"{t!r} multiplies {len(t.factors)} tensors"


def is_scheduled(lowered: Lowered) -> Iterator[str]:
    """Everything is computed before it is used, and given by an earlier loop where it is not computed again."""
    for f in lowered.functions:
        yield from (f"{f.name}: {broken}" for broken in _order(f))
    if lowered.guard not in lowered.update:
        yield "a step is taken whether or not it is finite"


def _order(f: Function) -> Iterator[str]:
    known: set[Tensor] = set(f.inputs)
    kept: set[Tensor] = set()

    def missing(n: Tensor, more: set[Tensor]) -> list[Tensor]:
        below = (m for m in n.operands if isinstance(m, Tensor) and not isinstance(m, State | Constant))
        return [m for m in below if m not in known and m not in more]

    for step in f.steps:
        if not isinstance(step, Loop):
            yield from (f"{step!r} waits for {m!r}" for m in missing(step, set()))
            known.add(step)
            continue
        inside: set[Tensor] = set()
        for n in (*step.body, *step.sums):
            yield from (f"{n!r} waits for {m!r} in a loop" for m in missing(n, inside))
            inside.add(n)
        yield from (f"a loop takes {n!r}, which none keeps" for n in step.given if n not in kept)
        kept.update(step.kept)
        known.update(step.sums)
    known.update(t for _, t in f.outputs if isinstance(t, State | Constant | Input))
    yield from (f"the output {name} is not computed" for name, t in f.outputs if t not in known)


def _tensors(lowered: Lowered) -> Iterator[Tensor]:
    roots = [t for f in lowered.functions for _, t in f.outputs]
    return (t for t in topological(roots) if isinstance(t, Tensor))
