"""Scheduling: which tensors are computed once per call, and which inside a loop over blocks of atoms.

Sums over one atom axis that do not wait for each other share a loop, so a forward and a backward pass read the atoms
once each, and no tensor of size batch × atoms outlives its block.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tpc.errors import InternalError, UserError
from tpc.limits.graph import State, atoms_in
from tpc.program import tensor
from tpc.program.axes import Axis
from tpc.program.node import topological
from tpc.program.tensor import Contract, Tensor


@dataclass(frozen=True)
class Loop:
    """For every block of `atom`: compute `body`, and add the block's share to each of `sums`."""

    atom: Axis
    states: tuple[State, ...]
    captured: tuple[Tensor, ...]
    body: tuple[Tensor, ...]
    sums: tuple[Contract, ...]


@dataclass(frozen=True)
class Function:
    """A straight-line list of tensors and loops that computes `outputs` from `inputs` and states."""

    name: str
    inputs: tuple[Tensor, ...]
    steps: tuple[Tensor | Loop, ...]
    outputs: tuple[tuple[str, Tensor], ...]


def schedule(name: str, outputs: Mapping[str, Tensor], given: Iterable[Tensor] = ()) -> Function:
    """Order the computation of `outputs`; `given` tensors are arguments and are not recomputed."""
    given = tuple(given)
    order = _needed(list(outputs.values()), set(given))
    depth: dict[Tensor, int] = {}
    for n in order:
        below = [depth[m] for m in _operands(n) if m in depth]
        depth[n] = max(below, default=0) + (1 if _is_reduction(n) else 0)
        if len(atoms_in(n.axes)) > 1:
            raise UserError(
                f"{name} needs a product of two sums over atoms ({', '.join(a.name for a in atoms_in(n.axes))}), "
                "which grows with the square of their number. Remove the moment that joins two trained weights."
            )
    steps: list[Tensor | Loop] = []
    for level in range(max(depth.values(), default=0) + 1):
        ready = [n for n in order if depth[n] == level and n not in given]
        steps += _loops([n for n in ready if _is_reduction(n)], set(given))
        steps += [n for n in ready if not _is_reduction(n) and not atoms_in(n.axes)]
    inputs = given + tuple(n for n in order if isinstance(n, tensor.Input) and n not in given)
    steps = [s for s in steps if not isinstance(s, tensor.Input | tensor.Constant | State)]
    return Function(name, inputs, tuple(steps), tuple(outputs.items()))


def _operands(n: Tensor) -> list[Tensor]:
    return [m for m in n.operands if isinstance(m, Tensor)]


def _needed(roots: list[Tensor], given: set[Tensor]) -> list[Tensor]:
    """What has to be computed, operands first, stopping at what is given."""
    wanted: set[Tensor] = set()
    stack = list(roots)
    while stack:
        n = stack.pop()
        if n not in wanted:
            wanted.add(n)
            if n not in given:
                stack.extend(_operands(n))
    return [n for n in topological(roots) if isinstance(n, Tensor) and n in wanted]


def _is_reduction(n: Tensor) -> bool:
    """A sum over atoms."""
    return isinstance(n, Contract) and bool(atoms_in(n.over))


def _loops(sums: list[Tensor], given: set[Tensor]) -> list[Loop]:
    """Sums share a loop if their atoms do, and the samples that meet these atoms."""
    members: dict[tuple[Axis, frozenset[Axis]], list[Contract]] = {}
    alone: dict[Axis, list[Contract]] = {}
    for n in sums:
        assert isinstance(n, Contract)
        (axis,) = atoms_in(n.over)
        met = _met(n, axis, given)
        (members.setdefault((axis, met), []) if met else alone.setdefault(axis, [])).append(n)
    for axis, rest in alone.items():
        first = next((group for (a, _), group in members.items() if a == axis), None)
        members.setdefault((axis, frozenset()), rest) if first is None else first.extend(rest)
    order = {n: k for k, n in enumerate(sums)}
    return [_loop(axis, sorted(group, key=order.__getitem__), given) for (axis, _), group in members.items()]


def _met(total: Contract, atom: Axis, given: set[Tensor]) -> frozenset[Axis]:
    """The axes besides those of stored rows that a sum over atoms involves."""
    met: set[Axis] = set()
    stored: set[Axis] = set()
    seen: set[Tensor] = set()
    stack = _operands(total)
    while stack:
        n = stack.pop()
        if n in seen or atom not in n.axes:
            continue
        seen.add(n)
        if isinstance(n, State):
            stored.update(n.axes)
        else:
            met.update(n.axes)
            if n not in given:
                stack.extend(_operands(n))
    return frozenset(met - stored)


def _loop(axis: Axis, sums: list[Contract], given: set[Tensor]) -> Loop:
    inside: set[Tensor] = set()
    stack: list[Tensor] = [m for s in sums for m in _operands(s)]
    captured: dict[Tensor, None] = {}
    while stack:
        n = stack.pop()
        if n in inside or n in captured:
            continue
        if axis in n.axes and n not in given:
            inside.add(n)
            stack.extend(_operands(n))
        elif not isinstance(n, tensor.Constant):
            captured[n] = None
    order = [n for n in topological(sums) if isinstance(n, Tensor) and n in inside]
    states = tuple(n for n in order if isinstance(n, State))
    if not states:
        raise InternalError(f"a loop over {axis} reads no stored atoms")
    kept = [n for n in topological(sums) if n in captured and isinstance(n, Tensor)]
    return Loop(axis, states, tuple(kept), tuple(n for n in order if not isinstance(n, State)), tuple(sums))
