"""The start of lowering: everything a trained limit computes, as functions, and what a step does with it."""

from __future__ import annotations

from collections.abc import Iterator

from tpc.limits.expect import expectation
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import State
from tpc.limits.store import Append, Fold, Store, Update
from tpc.limits.tail import beyond
from tpc.lower.instructions import AccumulateGradient, AppendAtoms, Change, FoldMoments, Function, Lowered, Operand
from tpc.lower.places import COEFFICIENTS, columns
from tpc.program.axes import Axis
from tpc.program.functions import argument
from tpc.program.ir import theta
from tpc.program.tensor import Tensor


def collect(graph: LimitGraph, multipliers: bool = False, predicted: LimitGraph | None = None) -> Lowered:
    """`predict`, `gradients`, `norms` and the functions that fold, as tensors of the limit graph.

    Predictions come from `predicted` where another form of the graph suits large batches better.
    """
    outputs = {"logits": graph["logits"], "loss": graph["loss"]}
    changes: list[Change] = []
    for weight, updates in graph.updates:
        for k, u in enumerate(updates):
            made, operands = _change(weight, f"{weight}.{k}" if len(updates) > 1 else weight, u)
            changes.append(made)
            outputs.update(zip((o.key for o in made.operands), operands))
    logits = (predicted or graph)["logits"]
    functions = [
        Function("predict", (), (), (("logits", logits),)),
        Function("gradients", (), (), tuple(outputs.items())),
        Function("norms", (), (), graph.norms),
    ]
    folds = []
    for number, f in enumerate(graph.folds, 1):
        own = tuple(_folding(number, f))
        functions += own
        names = [each.name for each in own]
        folds.append(FoldMoments(f, names[0], names[1], names[2] if len(names) > 2 else None))
    return Lowered(graph, tuple(functions), tuple(changes), folds=tuple(folds), multipliers=multipliers)


def _change(weight: str, stem: str, u: Update) -> tuple[Change, tuple[Tensor, ...]]:
    """An instruction with what its operands are; `stem` begins their names."""
    if not isinstance(u, Append):
        return AccumulateGradient(weight, u.state, (Operand(f"{stem}:gradient", "gradient"),)), (u.gradient,)
    operands = tuple(Operand(f"{stem}:{column}", column, column != COEFFICIENTS) for column in columns(u.store))
    return AppendAtoms(weight, u.store, u.batch, operands), (u.coefficient, *u.columns, *u.thetas)


def _folding(number: int, f: Fold) -> Iterator[Function]:
    """The functions of `FoldMoments`."""
    one, other = (_rows(f.store, axis, *names) for axis, names in (("first", "bs"), ("second", "ct")))
    (b, s), (c, t) = one, other
    profiles = {",".join(map(str, index)): expectation(fn, *one) for m in f.moments for index, fn in m.profiles}
    yield Function(f"profiles{number}", (*b, *s), (), tuple(profiles.items()))
    later = {argument(i): argument(len(b) + i) for i in range(len(b))}
    later |= {theta(j): theta(len(s) + j) for j in range(len(s))}
    exact = expectation(f.store.fn * f.store.fn.xreplace(later), (*b, *c), (*s, *t))
    yield Function(f"exact{number}", (*b, *s, *c, *t), (), (("V", exact),))
    if f.tail is not None:
        points = State("z", f.tail.points.axes)
        values = beyond(f.store.fn, f.degree, *one, points)
        yield Function(f"sampled{number}", (*b, *s, points), (), (("T", values),))


def _rows(store: Store, axis: str, latent: str, number: str) -> tuple[tuple[State, ...], tuple[State, ...]]:
    """The stored latents and parameters of some atoms, as arguments of a function."""
    rows = Axis(axis)
    latents = (State(f"{latent}{i or ''}", (rows, b.axes[-1]), b.unit) for i, b in enumerate(store.columns))
    return tuple(latents), tuple(State(f"{number}{j or ''}", (rows,)) for j in range(len(store.thetas)))
