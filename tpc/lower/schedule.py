"""Scheduling: which tensors are computed once per call, and which inside a loop over blocks of atoms.

Sums over one atom axis that do not wait for each other share a loop, so a forward and a backward pass read the atoms
once each, and no tensor of size batch × atoms outlives its block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from tpc.errors import InternalError, UserError
from tpc.limits.nodes import State, atoms_in
from tpc.lower.instructions import AccumulateGradient, AgeAtoms, AgeMoments, Function, Instruction, Loop, Lowered
from tpc.program import tensor
from tpc.program.axes import Axis
from tpc.program.node import Node, topological
from tpc.program.tensor import Contract, Tensor

Products = Callable[[Loop], tuple[int, Sequence[Tensor]]]


def scheduled(lowered: Lowered) -> Lowered:
    """The stage: an order for every function, and one for the update.

    `norms` is given what `gradients` has computed by then, which becomes an output of it.
    """
    gradients, norms = lowered.gradients, lowered.norms
    outputs, wanted = dict(gradients.outputs), dict(norms.outputs)
    computed = _computed(schedule("gradients", outputs))
    saved = [n for n in _frontier(list(wanted.values()), computed) if not isinstance(n, tensor.Input)]
    known = set(outputs.values())
    outputs |= {f"saved{k}": t for k, t in enumerate(saved, 1) if t not in known}
    own = {"gradients": schedule("gradients", outputs), "norms": schedule("norms", wanted, saved)}
    functions = (own.get(f.name) or schedule(f.name, dict(f.outputs), f.inputs) for f in lowered.functions)
    return replace(lowered, functions=tuple(functions), update=tuple(_update(lowered)))


def _update(lowered: Lowered) -> Iterator[Instruction]:
    """Stores age before they grow; what accumulates comes last, for appended rows may be views of it."""
    folded = {f.fold.store.name for f in lowered.folds}
    yield lowered.guard
    for s in lowered.graph.stores:
        yield AgeAtoms(s.weight, s)
        if s.name in folded:
            yield AgeMoments(s.weight, s)
    yield from sorted(lowered.changes, key=lambda c: isinstance(c, AccumulateGradient))


def _computed(function: Function) -> set[Tensor]:
    found: set[Tensor] = set()
    for s in function.steps:
        found.update(s.sums if isinstance(s, Loop) else (s,))
    return found


def _frontier(roots: list[Tensor], computed: set[Tensor]) -> list[Tensor]:
    """The tensors of `computed` that the roots are computed from, nearest first; data counts as computed."""
    found: set[Tensor] = set()
    seen: set[Tensor] = set()
    stack = list(roots)
    while stack:
        n = stack.pop()
        if n in seen:
            continue
        seen.add(n)
        if n in computed or isinstance(n, tensor.Input):
            found.add(n)
        else:
            stack.extend(_operands(n))
    return [n for n in topological(roots) if n in found and isinstance(n, Tensor)]


def saved_keys(lowered: Lowered) -> tuple[str, ...]:
    """For every argument of `norms`, its key among the outputs of `gradients` ("x" and "y" are data)."""
    names = {t: name for name, t in lowered.gradients.outputs}
    return tuple(i.name if isinstance(i, tensor.Input) else names[i] for i in lowered.norms.inputs)


def schedule(name: str, outputs: Mapping[str, Tensor], given: Iterable[Tensor] = ()) -> Function:
    """Order the computation of `outputs`; `given` tensors are arguments and are not recomputed."""
    given = tuple(given)
    known = set(given)
    order = _needed(list(outputs.values()), known)
    depth: dict[Tensor, int] = {}
    for n in order:
        below = [depth[m] for m in _operands(n) if m in depth]
        depth[n] = max(below, default=0) + (1 if _is_reduction(n) else 0)
        if len(atoms_in(n.axes)) > 1:
            raise UserError(
                f"{name} needs a product of two sums over atoms ({', '.join(a.name for a in atoms_in(n.axes))}), "
                "which grows with the square of their number. Remove the moment that joins two trained weights."
            )
    levels: list[list[Tensor]] = [[] for _ in range(max(depth.values(), default=0) + 1)]
    for n in order:
        if n not in known:
            levels[depth[n]].append(n)
    loops = _Loops(known, depth, {n: k for k, n in enumerate(order)})
    steps: list[Tensor | Loop] = []
    for ready in levels:
        steps += loops.of([n for n in ready if _is_reduction(n)])
        steps += [n for n in ready if not _is_reduction(n) and not atoms_in(n.axes)]
    inputs = given + tuple(n for n in order if isinstance(n, tensor.Input) and n not in known)
    steps = [s for s in steps if not isinstance(s, tensor.Input | tensor.Constant | State)]
    return sharing(Function(name, inputs, tuple(steps), tuple(outputs.items())))


def sharing(function: Function, products: Products | None = None) -> Function:
    """With loops that keep the products with stored latents that later ones need.

    `products` gives those of a loop that another can take, and a number: loops share with those of the same one.
    """
    first: dict[tuple[int, Tensor], Loop] = {}
    kept: dict[Loop, list[Tensor]] = {}
    given: dict[Loop, list[Tensor]] = {}
    for loop in (s for s in function.steps if isinstance(s, Loop)):
        kind, own = products(loop) if products else (0, products_of(loop))
        for n in own:
            owner = first.setdefault((kind, n), loop)
            if owner is not loop:
                given.setdefault(loop, []).append(n)
                kept.setdefault(owner, []).append(n)
    ordered = {loop: [n for n in loop.body if n in {*found}] for loop, found in kept.items()}
    steps = (
        replace(s, kept=tuple(ordered.get(s, ())), given=tuple(given.get(s, ()))) if isinstance(s, Loop) else s
        for s in function.steps
    )
    return replace(function, steps=tuple(steps))


def products_of(loop: Loop) -> list[Tensor]:
    """Products with stored latents, which take longest."""
    return [n for n in loop.body if isinstance(n, Contract) and n.over]


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


class _Loops:
    """The loops of a function. `depth` is how many sums over atoms a tensor waits for, `place` where it is in order."""

    def __init__(self, given: set[Tensor], depth: Mapping[Tensor, int], place: Mapping[Tensor, int]) -> None:
        self._given = given
        self._depth = depth
        self._place = place
        self._first: dict[Tensor, int] = {}  # the depth of the first loop that needs a tensor of its block

    def of(self, sums: list[Tensor]) -> list[Loop]:
        """Loops for sums of one depth. They share one if their atoms do, and the samples that meet these atoms."""
        members: dict[tuple[Axis, frozenset[Axis]], list[Contract]] = {}
        alone: dict[Axis, list[Contract]] = {}
        for n in sums:
            assert isinstance(n, Contract)
            (axis,) = atoms_in(n.over)
            met = self._met(n, axis)
            (members.setdefault((axis, met), []) if met else alone.setdefault(axis, [])).append(n)
        for axis, rest in alone.items():
            first = next((group for (a, _), group in members.items() if a == axis), None)
            members.setdefault((axis, frozenset()), rest) if first is None else first.extend(rest)
        order = {n: k for k, n in enumerate(sums)}
        return [self._loop(axis, sorted(group, key=order.__getitem__)) for (axis, _), group in members.items()]

    def _met(self, total: Contract, atom: Axis) -> frozenset[Axis]:
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
                if n not in self._given:
                    stack.extend(_operands(n))
        return frozenset(met - stored)

    def _loop(self, axis: Axis, sums: list[Contract]) -> Loop:
        inside: set[Tensor] = set()
        stack: list[Tensor] = [m for s in sums for m in _operands(s)]
        captured: set[Tensor] = set()
        while stack:
            n = stack.pop()
            if n in inside or n in captured:
                continue
            if axis in n.axes and n not in self._given:
                inside.add(n)
                stack.extend(_operands(n))
            elif not isinstance(n, tensor.Constant):
                captured.add(n)
        order = self._ordered(sums, inside, captured)
        body = [n for n in order if n in inside]
        states = tuple(n for n in body if isinstance(n, State))
        if not states:
            raise InternalError(f"a loop over {axis} reads no stored atoms")
        kept = tuple(n for n in order if n in captured)
        return Loop(axis, states, kept, tuple(n for n in body if not isinstance(n, State)), tuple(sums))

    def _ordered(self, sums: list[Contract], inside: set[Tensor], captured: set[Tensor]) -> list[Tensor]:
        """What a block computes and takes, operands first, and what an earlier loop needed before what waits for it."""
        earlier = sorted((n for n in inside if n in self._first), key=self._place.__getitem__)

        def below(n: Node) -> Iterable[Node]:
            if n not in captured:
                return n.operands
            assert isinstance(n, Tensor)
            needed = [m for m in earlier if self._first[m] <= self._depth[n]]
            return [*needed, *(m for m in n.operands if m in captured)]

        order = [n for n in topological(sums, below) if isinstance(n, Tensor)]
        for n in inside:
            self._first.setdefault(n, self._depth[sums[0]])
        return order
