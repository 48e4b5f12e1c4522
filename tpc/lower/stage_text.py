"""The stages of lowering as listings: one tensor per line, then what every function gives and what a step does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import singledispatch

from tpc.errors import InternalError
from tpc.gaussian.names import KernelNames
from tpc.limits.text import LimitNames, equation, prefix, type_of
from tpc.lower.concretise import Tabulated
from tpc.lower.instructions import (
    AccumulateGradient,
    AgeAtoms,
    AgeMoments,
    AppendAtoms,
    FoldMoments,
    Function,
    Guard,
    Instruction,
    Loop,
)
from tpc.program.lines import Names, operation
from tpc.program.naming import text
from tpc.program.node import Node, topological
from tpc.program.tensor import Tensor


def listing(title: str, functions: Sequence[Function], instructions: Sequence[Instruction]) -> str:
    """Functions and instructions as text. Tensors that no function has an order for come first."""
    names = _Names(functions)
    loose = [t for f in functions if not f.steps for _, t in f.outputs]
    inside = {n for f in functions for n in _scheduled(f)}
    lines = [title, *(_line(n, names) for n in topological(loose) if n not in inside and names.is_line(n))]
    for f in functions:
        given = [names[i] for i in f.inputs]
        lines.append(f"function {f.name}" + (f"({', '.join(given)})" if given else ""))
        lines += [f"  {line}" for step in f.steps for line in _step(step, names)]
        lines += [f"  output {name} = {names[t]}" for name, t in f.outputs]
    if instructions:
        lines += ["step", *(f"  {statement(i)}" for i in instructions)]
    return "\n".join(lines) + "\n"


class _Names(LimitNames):
    """The names of the tensors of all functions."""

    def __init__(self, functions: Sequence[Function]) -> None:
        roots = [t for f in functions for _, t in f.outputs] + [t for f in functions for t in f.inputs]
        Names.__init__(self, topological(roots), prefix)
        self.functions = KernelNames(())


def _scheduled(f: Function) -> Iterator[Node]:
    for step in f.steps:
        yield from (*step.body, *step.sums) if isinstance(step, Loop) else (step,)


def _step(step: Tensor | Loop, names: LimitNames) -> Iterator[str]:
    if not isinstance(step, Loop):
        yield _line(step, names)
        return
    yield f"for blocks of {step.atom}, with {', '.join(s.name for s in step.states)}"
    yield from (f"  {names[n]} is kept by an earlier loop" for n in step.given)
    yield from (f"  {_line(n, names)}" for n in step.body if n not in step.given and names.is_line(n))
    yield from (f"  total {_line(s, names)}" for s in step.sums)
    yield from (f"  keep {names[n]}" for n in step.kept)


def _line(n: Node, names: LimitNames) -> str:
    assert isinstance(n, Tensor)
    return f"{names[n]} : {type_of(n)} = {equation(n, names)}"


@operation.register
def _tabulated(n: Tabulated, names: Names) -> str:
    return f"table[{text(n.phi)}; {text(n.psi)}]({names[n.p]}, {names[n.q]}, {names[n.c]})"


@singledispatch
def statement(i: object) -> str:
    """An instruction as a line."""
    raise InternalError(f"no listing for {type(i).__name__}")


@statement.register
def _guard(i: Guard) -> str:
    return f"only if finite and in range: loss, norms, {', '.join(i.keys)}"


@statement.register
def _age(i: AgeAtoms) -> str:
    return f"age atoms of {i.store.name}  by the rate and the decay of {i.weight}"


@statement.register
def _age_moments(i: AgeMoments) -> str:
    return f"age folded atoms of {i.store.name}  by the decay of {i.weight}"


@statement.register
def _append(i: AppendAtoms) -> str:
    operands = ", ".join(f"{o.target} <- {o.key}" for o in i.operands)
    return f"append to {i.store.name}: {operands}  for each {', '.join(map(str, i.batch))}"


@statement.register
def _accumulate(i: AccumulateGradient) -> str:
    return f"accumulate {i.state.name} <- {i.operands[0].key}"


@statement.register
def _fold(i: FoldMoments) -> str:
    return f"fold the oldest atoms of {i.fold.store.name}  by {', '.join(i.functions)}"
