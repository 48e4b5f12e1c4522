"""What a step would do to a model, looked at before it is done: a step that is not finite is told and not taken."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import numpy as np

from tpc.limits.store import Accumulate
from tpc.lower.lowered import UpdatePlan
from tpc.runtime.models.base import ModelBase
from tpc.runtime.models.divergence import not_taken

LARGE_LOSS = 1e10  # beyond which every step is looked at closely
UNHEARD = 1e-8  # of the largest number: what is smaller than that does not carry a sum over it
BLOCK = 4096  # rows of a store looked at together


class StepChecks:
    """One step of a model, with this rate and clipping norm."""

    def __init__(self, model: ModelBase, plans: Sequence[UpdatePlan], lr: float, clip: float | None) -> None:
        self._model = model
        self._plans = plans
        self._lr, self._clip = lr, clip
        self._loss = 0.0

    def _refuse(self, quantity: str, weight: str, found: str) -> NoReturn:
        raise not_taken(quantity, weight, found, self._loss, self._lr, self._clip)

    def gradients(self, loss: float, out: Mapping[str, Any], squares: Mapping[str, float], finite: bool) -> None:
        """Raise DivergedError unless the loss, what is appended and squared gradient norms are finite."""
        self._loss = loss
        if not math.isfinite(self._loss):
            weight, size = largest_weight(self._model)
            self._refuse("loss", "", f"is {self._loss} (the largest numbers are those of {weight}, up to {size:.3g})")
        if not finite:
            self._not_finite(out)
        for weight, square in squares.items():
            if not math.isfinite(square):
                self._refuse("the gradient norm", weight, f"is {math.sqrt(square) if square > 0 else square}")

    def _not_finite(self, out: Mapping[str, Any]) -> None:
        for plan in self._plans:
            for key, target in zip(plan.keys, plan.targets):
                if not self._model.backend.inspect([], [out[key]])[1]:
                    wrong = int((~np.isfinite(self._model.backend.to_numpy(out[key]))).sum())
                    what = "the gradient" if target in ("A", "gradient") else f"the latent to be stored ({target})"
                    self._refuse(what, plan.weight, f"is not finite ({wrong} of its numbers are not)")

    def update(
        self, out: Mapping[str, Any], rate: Mapping[str, float], clip: Mapping[str, float], keep: Mapping[str, float],
        moving: bool,
    ) -> None:  # fmt: skip
        """Raise DivergedError where the state would leave the range of its numbers."""
        absurd = abs(self._loss) > LARGE_LOSS
        for plan in self._plans:
            w = plan.weight
            factor = rate[w] * clip[w]
            if isinstance(plan.update, Accumulate):
                if absurd or factor > 1:
                    self._accumulated(plan, out, factor, rate[w])
            elif absurd or factor > 1 or self._model.storage == "float16":
                self._appended(plan, out, factor, keep[w], moving)

    def _accumulated(self, plan: UpdatePlan, out: Mapping[str, Any], factor: float, rate: float) -> None:
        state, most = self._model.raw_state, float(np.finfo(self._model.dtype).max)
        name = plan.update.state.name  # type: ignore[union-attr]
        change = factor * largest(out[plan.keys[0]])
        if f"{name}.velocity" in state:
            change += rate * largest(state[f"{name}.velocity"])
        if change > UNHEARD * most:
            change += largest(state[name])
        if not change < most:
            self._refuse("the update", plan.weight, f"would reach {change:.3g}, beyond {self._model.dtype}")

    def _appended(self, plan: UpdatePlan, out: Mapping[str, Any], factor: float, keep: float, moving: bool) -> None:
        model = self._model
        store = model.raw_state[plan.update.store.name]  # type: ignore[union-attr]
        widest = {"float16": 65504.0, "bfloat16": 3.38e38}
        most = {**widest, **{t: float(np.finfo(t).max) for t in ("float32", "float64")}}
        scale = abs(store.scale * keep)
        stored = 1.0 if moving else factor / (scale if 1e-3 < scale < 1e3 else 1.0)
        if model.storage == "float16":  # whose coefficients are kept in units of their own
            stored = 0.0
        for key, target in zip(plan.keys, plan.targets):
            size = largest(out[key])
            kind = model.storage if math.prod(store.widths[target]) > 1 else model.dtype
            applied = [(size * stored, kind), (size * factor, model.dtype)]
            for value, limit in applied if target == "A" else [(size, kind)]:
                if not value <= most[limit]:
                    what = "the update" if target == "A" else f"the latent to be stored ({target})"
                    wider = "; a wider --storage holds more" if limit in widest else ""
                    found = f"would reach {value:.3g}, beyond {limit} ({most[limit]:.3g}){wider}"
                    self._refuse(what, plan.weight, found)


def largest(x: Any) -> float:
    """The largest magnitude in an array of any backend; of a sum of outer products, a bound of it."""
    if hasattr(x, "largest"):
        return float(x.largest())
    return float(abs(x).max()) if x.size else 0.0


def largest_weight(model: ModelBase) -> tuple[str, float]:
    """The weight that has the largest number, and its magnitude."""
    sizes: dict[str, float] = {}
    for u in model.graph.accumulated:
        sizes[u.state.name] = largest(model.raw_state[u.state.name])
    for s in model.graph.stores:
        atoms = model.raw_state[s.name]
        factors = atoms.blocks(("scale",), BLOCK) if atoms.per_atom else None
        found = [0.0]
        for k, (a,) in enumerate(atoms.blocks(("A",), BLOCK)):
            found.append(largest(a) * (largest(factors[k][0]) if factors else abs(atoms.scale)))
        sizes[s.name] = max(found)
    worst = max(sizes, key=lambda name: sizes[name] if sizes[name] == sizes[name] else math.inf)
    return worst, sizes[worst]
