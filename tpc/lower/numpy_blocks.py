"""Loops over atoms as functions of a block of them, which the runtime calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tpc.errors import InternalError
from tpc.lower.concretise import Tabulated
from tpc.lower.elementwise import Builder
from tpc.lower.instructions import Loop
from tpc.lower.layout import SAMPLES, layout
from tpc.lower.lengths import places_of
from tpc.lower.numpy_operations import OPERATIONS
from tpc.lower.operations import Operation, Value
from tpc.lower.places import column_of
from tpc.lower.writer import Line, Writer, is_elementwise
from tpc.program import tensor
from tpc.program.tensor import Contract, Tensor


@dataclass(frozen=True)
class _Step:
    """An operation, or a tensor that is not elementwise."""

    what: Operation | Contract | tensor.Rename | Tabulated
    target: Value

    @property
    def names(self) -> tuple[Value | Tensor, ...]:
        if isinstance(self.what, Operation):
            return self.what.args
        return tuple(n for n in self.what.operands if isinstance(n, Tensor))


def loop_over_blocks(w: Writer, loop: Loop, index: int) -> Iterator[Line]:
    """The function of a block, and its call."""
    block = f"block{index}"
    arrays = [w.target(s) for s in loop.states]
    for c in loop.captured:
        w.target(c)
    results = [w.target(s) for s in loop.sums]
    arrays += [w.target(n) for n in loop.given]
    yield w.line(f"def {block}({', '.join(arrays)}):", block)
    yield from (line.indented(block) for line in _block(w, loop))
    results += [f"{w.target(n)}_kept" for n in loop.kept]
    columns = ", ".join(f'"{column_of(s)}"' for s in loop.states)
    target = ", ".join(results) + ("," if len(results) == 1 else "")
    first = (c for c in loop.captured if c.axes and layout(c.axes)[0].base in SAMPLES)
    rows = next((f"{w.array(c)}.shape[0]" for c in first), "1")
    if (places := places_of(loop.body)) > 1:
        rows = f"{places} * {rows}"
    options = f", keep={len(loop.kept)}" if loop.kept else ""
    given = [f"{w.target(n)}_kept" for n in loop.given]
    if given:
        options += f", kept=({' '.join(f'{n},' for n in given)})"
    call = f'rt.over_blocks({block}, state["{loop.atom.base}"], ({columns},), {rows}{options})'
    yield w.line(f"{target} = {call}", *results, uses={block, *given, *w.used()})


def _block(w: Writer, loop: Loop) -> Iterator[Line]:
    steps = list(_steps(w, loop))
    returned = [w.dialect.total(w, s) for s in loop.sums]
    of_sums = w.used()
    last = _last_uses(w, steps, loop)
    owned: set[str] = set()
    for position, step in enumerate(steps):
        what, name = step.what, step.target.name
        if isinstance(what, Operation):
            axes = step.target.axes
            texts = [w.aligned(a, axes) for a in what.args]
            free = (a for a in what.args if a.name in owned and last[a.name] == position)
            room = next((a.name for a in free if layout(a.axes) == layout(axes) != ()), None)
            out = f", out={room}" if room else ""
            yield w.line(f"{name} = {OPERATIONS[what.op]}({', '.join(texts)}{out})", name)
            owned.add(name)
            continue
        if what in loop.given:
            yield w.line(f"if {w.array(what)} is None:  # too large to keep")
            yield from (line.indented() for line in w.dialect.statement(w, what))
        else:
            yield from w.dialect.statement(w, what)
        if not isinstance(what, tensor.Rename) and what not in loop.kept and what not in loop.given:
            owned.add(name)
    returned += [w.array(n) for n in loop.kept]
    yield w.line(f"return {', '.join(returned)}" + ("," if len(returned) == 1 else ""), uses=of_sums | w.used())


def _steps(w: Writer, loop: Loop) -> Iterator[_Step]:
    builder = Builder(w.temporary)
    for n in loop.body:
        before = len(builder.operations)
        if is_elementwise(n):
            w.keep(n, w.operations(n, builder))
            yield from (_Step(o, o.target) for o in builder.operations[before:])
        elif isinstance(n, Contract | tensor.Rename | Tabulated):
            yield _Step(n, Value(w.target(n), n.axes))
        else:
            raise InternalError(f"a block cannot compute {type(n).__name__}")


def _last_uses(w: Writer, steps: list[_Step], loop: Loop) -> dict[str, int]:
    """Where every name is used last; sums come at the end."""
    last: dict[str, int] = {}
    for position, step in enumerate(steps):
        for a in step.names:
            last[a.name if isinstance(a, Value) else w.named(a)] = position
    last.update({w.named(n): len(steps) for s in loop.sums for n in s.operands})
    return last
