"""Gradients of a finite network, kept as outer products until they are added to a weight in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tpc.passes.adapt import release
from tpc.passes.backward import backward
from tpc.passes.loss import attach_loss
from tpc.passes.outer_products import OuterProduct, products
from tpc.passes.project import PREFIX
from tpc.program.axes import Axes
from tpc.program.ir import MatrixWeight, Vector
from tpc.program.node import Node, topological
from tpc.program.program import AnyWeight, Program
from tpc.program.tensor import Tensor, Weight
from tpc.program.verify import verify
from tpc.runtime.networks.interpret import WIDTH, Evaluation
from tpc.runtime.networks.library import Library


@dataclass(frozen=True)
class Plan:
    """A program with loss and gradients: what to evaluate, operands first, and the parts of each weight's gradient."""

    program: Program
    order: tuple[Node, ...]
    gradients: Mapping[AnyWeight, tuple[tuple[OuterProduct, ...], tuple[Tensor | Vector, ...]]]


def make_plan(program: Program, loss: str, ending: Callable[[Program], Program]) -> Plan:
    """The plan for a network; `ending` projects its gradients, or removes projections."""
    trained = verify(ending(release(backward(attach_loss(program, loss)))), "backward")
    gradients = {
        w: products(w, trained[f"{PREFIX}{w.name}"]) for w in trained.weights if f"{PREFIX}{w.name}" in trained
    }
    wanted: list[Node] = [trained["logits"], trained["loss"]]
    for outer, rest in gradients.values():
        wanted += [*rest, *(n for p in outer for n in (p.left, p.right))]
    return Plan(trained, tuple(topological(wanted)), gradients)


@dataclass(frozen=True)
class Gradient:
    """unit · (Σ leftᵀ right + rest), of two dimensions: (m, n) for the finite axes of a weight and its width."""

    unit: float
    pairs: tuple[tuple[Any, Any], ...]
    rest: Any
    arrays: Library

    def norm(self) -> float:
        """The Frobenius norm, by Gram matrices of the factors."""
        square = 0.0 if self.rest is None else float((self.rest * self.rest).sum())
        for i, (left, right) in enumerate(self.pairs):
            for k, (other, over) in enumerate(self.pairs[: i + 1]):
                share = float(((left @ other.T) * (right @ over.T)).sum())
                square += share if k == i else 2 * share
            if self.rest is not None:
                square += 2 * float(((left @ self.rest) * right).sum())
        return self.unit * math.sqrt(square if square > 0 else 0.0 * square)

    def is_finite(self) -> bool:
        """Whether there is no NaN and no infinity in it."""
        parts = [x for pair in self.pairs for x in pair] + ([] if self.rest is None else [self.rest])
        return all(math.isfinite(float(x.sum())) or bool(self.arrays.xp.isfinite(x).all()) for x in parts)

    def largest(self) -> float:
        """What no magnitude in it exceeds."""
        found = 0.0 if self.rest is None else float(abs(self.rest).max()) if self.rest.size else 0.0
        for left, right in self.pairs:
            if left.size and right.size:
                found += len(left) * float(abs(left).max()) * float(abs(right).max())
        return abs(self.unit) * found

    def add_to(self, array: Any, keep: float, factor: float) -> None:
        """array ← keep·array + factor·gradient, in place."""
        flat = array.reshape(-1, array.shape[-1]) if array.ndim else array.reshape(1, 1)
        if self.rest is not None:
            add_scaled(flat, keep, factor * self.unit, self.rest)
            keep = 1.0
        for left, right in self.pairs:
            self.arrays.add_outer(flat, keep, factor * self.unit, left, right)
            keep = 1.0


def _products(left: Any, right: Any, finite: int, xp: Any) -> Any:
    """Σ left ⊗ right for every place of the first `finite` axes, (places·n, n)."""
    flat = (math.prod(left.shape[:finite]), -1, left.shape[-1])
    return xp.matmul(left.reshape(flat).swapaxes(1, 2), right.reshape(flat)).reshape(-1, right.shape[-1])


def add_scaled(to: Any, keep: float, factor: float, x: Any) -> None:
    """to ← keep·to + factor·x, in place."""
    if keep != 1:
        to *= keep
    to += factor * x


def gradient(w: AnyWeight, plan: Plan, run: Evaluation, unit: float) -> Gradient:
    """The gradient of a weight, where the plan is evaluated."""
    outer, rest = plan.gradients[w]
    finite: Axes = (*w.shape, WIDTH) if isinstance(w, MatrixWeight) else w.axes
    whole: Axes = w.axes if isinstance(w, Weight) else (*finite, WIDTH)
    xp, pairs, added = run.arrays.xp, [], None
    for p in outer:
        if isinstance(w, MatrixWeight) and set(p.right.axes) & set(w.shape):  # tied on both sides
            left, right = (run.spread(n, (*w.shape, *p.over, WIDTH)) for n in (p.left, p.right))
            value = _products(left, right, len(w.shape), xp)
            added = value if added is None else added + value
            continue
        left, right = run.rows(p.left, p.over, *finite), run.rows(p.right, p.over, WIDTH)
        pairs.append((xp.ascontiguousarray(left.reshape(len(right), -1)), xp.ascontiguousarray(right)))
    for n in rest:
        value = run.rows(n, whole).reshape(-1, run.shape(whole)[-1] if whole else 1)
        added = value if added is None else added + value
    return Gradient(unit, tuple(pairs), added, run.arrays)
