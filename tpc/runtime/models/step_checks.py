"""What a step would do to a model, looked at before it is done: a step that is not finite is told and not taken."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from tpc.lower.instructions import AccumulateGradient, AppendAtoms, Guard
from tpc.runtime.models.base import ModelBase
from tpc.runtime.models.divergence import not_taken

LARGE_LOSS = 1e10  # beyond which every step is looked at closely
UNHEARD = 1e-8  # of the largest number: what is smaller than that does not carry a sum over it
BLOCK = 4096  # rows of a store looked at together


class StepChecks:
    """One step of a model, with this rate and clipping norm."""

    def __init__(self, model: ModelBase, guard: Guard, lr: float, clip: float | None) -> None:
        self._model = model
        self._guard = guard
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
        for change in self._guard.changes:
            for o in change.operands:
                if not self._model.backend.inspect([], [out[o.key]])[1]:
                    wrong = int((~np.isfinite(self._model.backend.to_numpy(out[o.key]))).sum())
                    what = f"the latent to be stored ({o.target})" if o.is_latent else "the gradient"
                    self._refuse(what, change.weight, f"is not finite ({wrong} of its numbers are not)")

    def update(
        self, out: Mapping[str, Any], rate: Mapping[str, float], clip: Mapping[str, float], keep: Mapping[str, float],
        moving: bool,
    ) -> None:  # fmt: skip
        """Raise DivergedError where the state would leave the range of its numbers."""
        absurd = abs(self._loss) > LARGE_LOSS
        for change in self._guard.changes:
            w = change.weight
            factor = rate[w] * clip[w]
            if isinstance(change, AccumulateGradient):
                if absurd or factor > 1:
                    self._accumulated(change, out, factor, rate[w])
            elif absurd or factor > 1 or self._model.storage == "float16":
                self._appended(change, out, factor, keep[w], moving)

    def _accumulated(self, change: AccumulateGradient, out: Mapping[str, Any], factor: float, rate: float) -> None:
        state, most = self._model.raw_state, float(np.finfo(self._model.dtype).max)
        name = change.state.name
        size = factor * largest(out[change.operands[0].key])
        if f"{name}.velocity" in state:
            size += rate * largest(state[f"{name}.velocity"])
        if size > UNHEARD * most:
            size += largest(state[name])
        if not size < most:
            self._refuse("the update", change.weight, f"would reach {size:.3g}, beyond {self._model.dtype}")

    def _appended(self, change: AppendAtoms, out: Mapping[str, Any], factor: float, keep: float, moving: bool) -> None:
        model = self._model
        store = model.raw_state[change.store.name]
        widest = {"float16": 65504.0, "bfloat16": 3.38e38}
        most = {**widest, **{t: float(np.finfo(t).max) for t in ("float32", "float64")}}
        scale = abs(store.scale * keep)
        stored = 1.0 if moving else factor / (scale if 1e-3 < scale < 1e3 else 1.0)
        if model.storage == "float16":  # whose coefficients are kept in units of their own
            stored = 0.0
        for o in change.operands:
            size = largest(out[o.key])
            kind = model.storage if math.prod(store.widths[o.target]) > 1 else model.dtype
            applied = [(size * stored, kind), (size * factor, model.dtype)]
            for value, limit in [(size, kind)] if o.is_latent else applied:
                if not value <= most[limit]:
                    what = f"the latent to be stored ({o.target})" if o.is_latent else "the update"
                    wider = "; a wider --storage holds more" if limit in widest else ""
                    found = f"would reach {value:.3g}, beyond {limit} ({most[limit]:.3g}){wider}"
                    self._refuse(what, change.weight, found)


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
