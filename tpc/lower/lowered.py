"""The functions a trained limit needs, scheduled: predict, gradients, norms, and what the update does with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tpc.limits.expect import expectation
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import State
from tpc.limits.store import Accumulate, Append, Fold, Store, Update
from tpc.limits.tail import beyond
from tpc.lower.concretise import Concretiser
from tpc.lower.plan import Planner
from tpc.lower.schedule import Function, Loop, schedule
from tpc.program.axes import Axes, Axis, without
from tpc.program.functions import argument
from tpc.program.ir import theta
from tpc.program.node import topological
from tpc.program.tensor import ZERO, Add, Contract, Input, Tensor, broadcast, rename


@dataclass(frozen=True)
class UpdatePlan:
    """Where the gradient of a weight is found among the outputs of `gradients`.

    For an accumulated weight `keys` is (gradient,); for appended atoms (coefficient, columns…, thetas…), and `targets`
    are the store's column names in the same order.
    """

    weight: str
    update: Update
    keys: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True)
class FoldPlan:
    """How a store folds: `profiles` gives E ∂^α fn of atoms by multi-index, `exact` E fn fn' of two sets of atoms.

    `sampled` gives what the atoms are beyond the degree at the points of the tail, if there is one. Atoms are given by
    the columns of their latents and parameters.
    """

    fold: Fold
    profiles: Function
    exact: Function
    sampled: Function | None


@dataclass(frozen=True)
class Lowered:
    """A limit graph ready to print for one backend."""

    graph: LimitGraph
    predict: Function
    gradients: Function
    norms: Function
    updates: tuple[UpdatePlan, ...]
    folds: tuple[FoldPlan, ...]
    multipliers: bool


def lower(graph: LimitGraph, multipliers: bool = False, predicted: LimitGraph | None = None) -> Lowered:
    """Schedule a limit graph that has a loss. `multipliers` stores a factor per atom, which momentum needs.

    Predictions come from `predicted` where another form of the graph suits large batches better.
    """
    concrete, plan = Concretiser(graph.stores, multipliers), Planner()

    def final(t: Tensor) -> Tensor:
        return plan(concrete(t))

    logits = final(graph["logits"])
    outputs = {"logits": logits, "loss": final(graph["loss"])}
    updates: list[UpdatePlan] = []
    for weight, changes in graph.updates:
        for k, u in enumerate(changes):
            if isinstance(u, Append) and concrete(u.coefficient) is ZERO:
                continue  # nothing flows back to this weight: its atoms would have no coefficients
            tensors, targets = _parts(u, concrete, plan)
            stem = f"{weight}.{k}" if len(changes) > 1 else weight
            keys = tuple(f"{stem}:{target}" for target in targets)
            outputs.update(zip(keys, tensors))
            updates.append(UpdatePlan(weight, u, keys, targets))
    norms = {weight: final(t) for weight, t in graph.norms}
    computed = _computed(schedule("gradients", outputs))
    saved = [n for n in _frontier(list(norms.values()), computed) if not isinstance(n, Input)]
    known = {id(t): name for name, t in outputs.items()}
    for k, t in enumerate(saved, 1):
        if id(t) not in known:
            outputs[f"saved{k}"] = t
    gradients = schedule("gradients", outputs)
    return Lowered(
        graph,
        schedule("predict", {"logits": logits if predicted is None else final(predicted["logits"])}),
        gradients,
        schedule("norms", norms, saved),
        tuple(updates),
        tuple(_fold_plan(k, f, final) for k, f in enumerate(graph.folds, 1)),
        multipliers,
    )


def _fold_plan(k: int, f: Fold, final: Callable[[Tensor], Tensor]) -> FoldPlan:
    one, other = (_rows(f.store, axis, *names) for axis, names in (("first", "bs"), ("second", "ct")))
    profiles = {",".join(map(str, index)): final(expectation(fn, *one)) for m in f.moments for index, fn in m.profiles}
    (b, s), (c, t) = one, other
    later = {argument(i): argument(len(b) + i) for i in range(len(b))}
    later |= {theta(j): theta(len(s) + j) for j in range(len(s))}
    exact = final(expectation(f.store.fn * f.store.fn.xreplace(later), (*b, *c), (*s, *t)))
    given = schedule(f"profiles{k}", profiles, [*b, *s]), schedule(f"exact{k}", {"V": exact}, [*b, *s, *c, *t])
    if f.tail is None:
        return FoldPlan(f, *given, None)
    points = State("z", f.tail.points.axes)
    values = final(beyond(f.store.fn, f.degree, *one, points))
    return FoldPlan(f, *given, schedule(f"sampled{k}", {"T": values}, [*b, *s, points]))


def _rows(store: Store, axis: str, latent: str, number: str) -> tuple[tuple[State, ...], tuple[State, ...]]:
    """The stored latents and parameters of some atoms, as arguments of a function."""
    rows = Axis(axis)
    latents = (State(f"{latent}{i or ''}", (rows, b.axes[-1]), b.unit) for i, b in enumerate(store.columns))
    return tuple(latents), tuple(State(f"{number}{j or ''}", (rows,)) for j in range(len(store.thetas)))


def _parts(u: Update, concrete: Concretiser, plan: Planner) -> tuple[list[Tensor], tuple[str, ...]]:
    if isinstance(u, Accumulate):
        return [plan(_along(u.state, concrete(u.gradient)))], ("gradient",)
    store = u.store
    batch: Axes = u.batch
    mixed = any(a.size is not None for a in batch)

    def along(t: Tensor, extra: Axes) -> Tensor:
        whole = broadcast(t, (*batch, *extra))
        return plan(rename(whole, {a: replace(a, role="last") for a in extra if a.size} if mixed else {}))

    tensors = [along(concrete.coefficient(u), store.coefficients.axes[1:])]
    tensors += [along(concrete.column(u, i), c.axes[1:]) for i, c in enumerate(store.columns)]
    tensors += [along(concrete(t), ()) for t in u.thetas]
    columns = (store.coefficients, *store.columns, *store.thetas)
    return tensors, tuple(c.name.removeprefix(f"{store.name}.") for c in columns)


def _along(state: Tensor, gradient: Tensor) -> Tensor:
    """The gradient along all axes of the state, whose lengths the state tells where nothing else does."""
    if all(a.size is not None for a in without(state.axes, gradient.axes)):
        return broadcast(gradient, state.axes)
    return Add((gradient, Contract((ZERO, state), ())))


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
        if n in computed or isinstance(n, Input):
            found.add(n)
        else:
            stack.extend(m for m in n.operands if isinstance(m, Tensor))
    return [n for n in topological(roots) if n in found and isinstance(n, Tensor)]


def saved_keys(lowered: Lowered) -> tuple[str, ...]:
    """For every argument of `norms`, its key among the outputs of `gradients` ("x" and "y" are data)."""
    names = {t: name for name, t in lowered.gradients.outputs}
    return tuple(i.name if isinstance(i, Input) else names[i] for i in lowered.norms.inputs)
