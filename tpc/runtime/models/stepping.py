"""One step of a compiled limit: what it would do is computed and looked at, and then done."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from tpc.errors import GaussianError
from tpc.lower.instructions import Guard
from tpc.runtime.models.arguments import clip_factors
from tpc.runtime.models.base import ModelBase
from tpc.runtime.models.divergence import DivergedError, beyond_kernels
from tpc.runtime.models.step_checks import StepChecks, largest_weight
from tpc.runtime.models.step_options import StepOptions
from tpc.runtime.models.targets import Targets


@dataclass(frozen=True)
class Code:
    """What a backend made of a lowered limit, and what a step of it must fulfil."""

    module: ModuleType
    guard: Guard


class Step:
    """A step of a model, with what its options give for every weight. `state` is what the backend works on."""

    def __init__(
        self,
        model: ModelBase,
        state: dict[str, Any],
        code: Code,
        options: StepOptions,
        rates: dict[str, float],
        keeps: dict[str, float],
    ) -> None:
        self._model = model
        self._state = state
        self._code = code
        self._options = options
        self._rates, self._keeps = rates, keeps
        self._out: Mapping[str, Any] = {}
        self._scales: dict[str, float] = {}

    def computed(self, data: Mapping[str, Any], wanted: Targets, momentum: bool) -> dict[str, Any]:
        """Gradients and metrics. Raises DivergedError where the guard forbids the step; the state is as it was."""
        options = self._options
        try:
            with np.errstate(all="ignore"):  # what is not finite is told by the checks
                return self._computed(data, wanted, momentum)
        except GaussianError as error:
            raise beyond_kernels(error, largest_weight(self._model), options.lr, options.clip) from error

    def _computed(self, data: Mapping[str, Any], wanted: Targets, momentum: bool) -> dict[str, Any]:
        module, guard, options, backend = self._code.module, self._code.guard, self._options, self._model.backend
        checks = StepChecks(self._model, guard, options.lr, options.clip)
        out = self._out = module.gradients(self._state, **taken(module.gradients, data))
        squares = {} if options.clip is None else self._squared_norms(data)
        operands = [out[key] for key in guard.keys]
        (value, *sizes), finite = backend.inspect([out["loss"], *squares.values()], operands)
        checks.gradients(value, out, dict(zip(squares, sizes)), finite)
        metrics: dict[str, Any] = {"loss": value, **wanted.measure(backend.to_numpy(out["logits"]))}
        self._scales = dict.fromkeys(self._rates, 1.0)
        if options.clip is not None:
            norms = {name: math.sqrt(max(0.0, size)) for name, size in zip(squares, sizes)}
            metrics["grad_norm"] = norms
            self._scales = clip_factors(norms, options.clip, options.clip_mode)
        checks.update(out, self._rates, self._scales, self._keeps, momentum)
        return metrics

    def _squared_norms(self, data: Mapping[str, Any]) -> dict[str, Any]:
        module = self._code.module
        arguments = [data[key] if key in data else self._out[key] for key in module.NORM_ARGUMENTS]
        squares: dict[str, Any] = module.norms(self._state, *arguments)
        return squares

    def apply(self, folds: bool) -> None:
        """Change the state, and fold old atoms if so asked. Raises DivergedError where these leave the range."""
        module = self._code.module
        with np.errstate(all="ignore"):
            module.update(self._state, self._out, self._rates, self._scales, self._keeps, self._options.momentum)
            if not folds:
                return
            try:
                module.fold(self._state)
            except OverflowError as error:
                raise DivergedError(
                    f"the step was taken, but the old atoms of a store cannot be folded any more: {error}. Training "
                    "has diverged: lower lr or clip the gradients, and go on from an earlier state",
                    quantity="folded atoms",
                ) from error


def taken(run: Callable[..., Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The data that a generated function takes."""
    code = inspect.unwrap(run).__code__
    return {name: data[name] for name in code.co_varnames[1 : code.co_argcount]}
