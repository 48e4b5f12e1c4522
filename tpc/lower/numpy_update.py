"""What a step does with gradients, as Python: one line per instruction."""

from __future__ import annotations

from functools import singledispatch

from tpc.errors import InternalError
from tpc.lower.instructions import AccumulateGradient, AgeAtoms, AgeMoments, AppendAtoms, FoldMoments, Guard, Lowered


def update_text(lowered: Lowered) -> str:
    """W ← decay·W - rate·∇ for every weight; stores append their gradient instead."""
    lines = [
        "def update(state, gradients, rate, clip, keep, momentum):",
        '    """Change the state by one step. Per weight: rate = η·mult, clip = clipping factor, keep = 1 - ηλ."""',
    ]
    return "\n".join([*lines, *(f"    {line}" for each in lowered.update for line in statement(each))])


def fold_text(lowered: Lowered) -> str:
    """What happens after the update."""
    lines = ["def fold(state):", '    """Fold the oldest atoms of every store that has more than its window."""']
    return "\n".join([*lines, *(f"    {line}" for each in lowered.folds for line in statement(each))])


@singledispatch
def statement(instruction: object) -> tuple[str, ...]:
    """The lines of an instruction."""
    raise InternalError(f"NumPy code has no statement for {type(instruction).__name__}")


@statement.register
def _guard(i: Guard) -> tuple[str, ...]:
    return ()  # who calls `update` has looked: only then is there a state to keep


@statement.register
def _age(i: AgeAtoms) -> tuple[str, ...]:
    return (f'state["{i.store.name}"].age(rate["{i.weight}"], keep["{i.weight}"], momentum)',)


@statement.register
def _age_moments(i: AgeMoments) -> tuple[str, ...]:
    return (f'state["{i.store.name}.folded"].age(keep["{i.weight}"])',)


@statement.register
def _append(i: AppendAtoms) -> tuple[str, ...]:
    columns = ", ".join(f'{o.target}=gradients["{o.key}"]' for o in i.operands)
    return (f'state["{i.store.name}"].append(rate["{i.weight}"], clip["{i.weight}"], {columns})',)


@statement.register
def _accumulate(i: AccumulateGradient) -> tuple[str, ...]:
    ((gradient, w),) = ((o.key, i.weight) for o in i.operands)
    given = f'gradients["{gradient}"], rate["{w}"], clip["{w}"], keep["{w}"], momentum'
    return (f'rt.accumulate(state, "{i.state.name}", {given})',)


@statement.register
def _fold(i: FoldMoments) -> tuple[str, ...]:
    name = i.fold.store.name
    return (f'state["{name}.folded"].absorb(state["{name}"], {", ".join(i.functions)})',)
