"""Where generated code finds what is stored: leaves that say which store they are of, and which part of it."""

from __future__ import annotations

from tpc.errors import InternalError
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import State
from tpc.limits.store import Fold, Store
from tpc.program import tensor
from tpc.program.node import node
from tpc.program.tensor import Tensor

COEFFICIENTS = "A"
MULTIPLIER = "scale"


@node
class Column(State):
    """A number or a row of every atom of a store."""

    store: str = ""
    column: str = ""


@node
class Multiplier(State):
    """The factor of all coefficients of a store."""

    store: str = ""


@node
class MomentState(State):
    """The folded tensor of one degree of a store."""

    store: str = ""
    order: int = 0


@node
class MomentWeight(State):
    """The number that the folded tensor of one degree is read with."""

    store: str = ""
    order: int = 0


@node
class TailState(State):
    """A part of what samples the tail of a folded store: "points", "tail" or "scale"."""

    store: str = ""
    part: str = ""


def columns(store: Store) -> dict[str, State]:
    """The columns of a store by their names within it, coefficients first."""
    latents = {f"B{i + 1}" if i else "B": c for i, c in enumerate(store.columns)}
    return {COEFFICIENTS: store.coefficients} | latents | {f"t{j}": c for j, c in enumerate(store.thetas)}


def moment_column(order: int) -> str:
    """The name of a folded tensor within its store, where its state is written."""
    return f"M{order}"


def places(graph: LimitGraph, multipliers: bool = False) -> dict[Tensor, Tensor]:
    """What stands for every stored array of a limit that is part of a store; `multipliers` are one per atom."""
    found: dict[Tensor, Tensor] = {}
    for s in graph.stores:
        made = {name: Column(c.name, c.shape, c.unit, s.name, name) for name, c in columns(s).items()}
        found.update(zip(columns(s).values(), made.values()))
        name = f"{s.name}.{MULTIPLIER}"
        scale: State = Multiplier(name, (), False, s.name)
        if multipliers:
            scale = Column(name, (s.atom,), False, s.name, MULTIPLIER)
        found[s.coefficients] = tensor.contract((scale, made[COEFFICIENTS]))
    for f in graph.folds:
        found |= _folded(f)
    return found


def _folded(f: Fold) -> dict[Tensor, Tensor]:
    name = f.store.name
    found: dict[Tensor, Tensor] = {}
    for m in f.moments:
        found[m.state] = MomentState(m.state.name, m.state.shape, False, name, m.order)
        found[m.weight] = MomentWeight(m.weight.name, (), False, name, m.order)
    if f.tail is not None:
        parts = {"points": f.tail.points, "tail": f.tail.values, "scale": f.tail.weight}
        found |= {t: TailState(t.name, t.shape, t.unit, name, part) for part, t in parts.items()}
    return found


def column_of(s: State) -> str:
    """The column that a loop over the atoms of a store reads."""
    if not isinstance(s, Column):
        raise InternalError(f"{s!r} is no column of stored atoms")
    return s.column
