"""A limit with numbers in it: predict, step, state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.derivation import Derivation
from tpc.errors import UsageError
from tpc.limits.graph import LimitGraph
from tpc.limits.power import packed_size
from tpc.lower.lengths import places_of
from tpc.lower.lowered import lower
from tpc.program.axes import SAMPLE
from tpc.runtime.models.arguments import (
    check_seed,
    input_rows,
)
from tpc.runtime.models.base import DTYPES as DTYPES
from tpc.runtime.models.base import MODES as MODES
from tpc.runtime.models.base import ModelBase
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.initial import initial_state
from tpc.runtime.models.input_shape import Shape, arranged
from tpc.runtime.models.model_state import loaded_state, state_of
from tpc.runtime.models.room import require_model_room
from tpc.runtime.models.step_options import StepOptions, takes_step_options
from tpc.runtime.models.stepping import Code, Step, taken
from tpc.runtime.models.support import BY_SAMPLE, Support, check_given
from tpc.runtime.models.targets import check_loss, read_targets

Array = NDArray[Any]
PREDICT_ROWS = 1024
PREDICT_NUMBERS = 1 << 23


def build(
    limit: Derivation,
    input_shape: Shape,
    rank: int,
    *,
    backend: str = "numpy",
    dtype: str = "float32",
    seed: int = 0,
    mode: str = "exact",
    storage: str | None = None,
    init: str = "zero_readout",
    fold: FoldOptions | None = None,
) -> Model:
    """An initialized model of a π-limit with `rank` latent dimensions per space.

    `input_shape` is the shape of a sample: its dimension, or the lengths of the axes that the program declares.
    `init` is "zero_readout" or "paper" (readout coefficients N(0,1)/M); `storage` is the number type of stored atoms
    (by default `dtype`); `fold` says how mode "folded" folds. Raises UsageError for values out of range, and UserError,
    before anything is allocated, for a model that does not fit into memory.
    """
    model = Model(limit, input_shape, rank, backend=backend, dtype=dtype, mode=mode, storage=storage, fold=fold)
    check_seed(seed)
    require_model_room(model)
    model.load_state(initial_state(limit.graph(), model.sizes, rank, int(seed), init))
    return model


class Model(ModelBase):
    """The state of one limit on one backend. Made by `Limit.build` or `Model.load`."""

    def __init__(self, limit: Derivation, input_shape: Shape, rank: int, **options: Any) -> None:
        super().__init__(limit, input_shape, rank, **options)
        self._codes: dict[tuple[str, bool], Code] = {}

    def _compiled(self, loss: str) -> Code:
        key = (loss, self._momentum)
        if key not in self._codes:
            points = self.fold.points
            graph = self.limit.graph(loss, self._degree, self.backend.HALVES, points)
            predicted = self.limit.graph(loss, self._degree, points=points)
            lowered = lower(graph, self._momentum, predicted, self.backend.stages)
            self._codes[key] = Code(self.backend.compile_module(lowered), lowered.guard)
        return self._codes[key]

    def _module(self, loss: str) -> ModuleType:
        return self._compiled(loss).module

    def prepare(self, loss: str) -> None:
        """Compile what a step runs. Raises UsageError for an unknown loss, and for one that needs more outputs."""
        check_loss(loss, self.classes)
        self._module(loss)

    # --- running -----------------------------------------------------------------------------------------------

    def predict(self, x: ArrayLike, support: Support | None = None) -> Array:
        """Logits of `x`, (N, *input_shape) → (N, classes); an adapted network learns from `support` first."""
        rows = self._inputs(x)
        data = {"x": rows, **self._support(support, len(rows))}
        run = self._module("cross_entropy").predict
        with np.errstate(all="ignore"):  # a diverged model has no finite logits
            size = self.predict_rows if not self.limit.program.joins_samples else max(1, len(rows))
            parts = [
                run(self._state, **taken(run, {n: v[i : i + size] if n in BY_SAMPLE else v for n, v in data.items()}))
                for i in range(0, len(rows), size)
            ]
        return (
            np.concatenate([self.backend.to_numpy(p["logits"]) for p in parts])
            if parts
            else np.empty((0, self.classes), self.dtype)
        )

    @property
    def predict_rows(self) -> int:
        """Rows predicted at a time: their packed powers take no more memory than what they are multiplied with."""
        return predicted_rows(self.graph, self.rank)

    @takes_step_options
    def step(self, x: ArrayLike, y: ArrayLike, *, support: Support | None = None, **options: Any) -> dict[str, Any]:
        """One SGD step on a batch; returns loss and accuracy before the update (and gradient norms if clipped).

        For every weight m ← momentum·m + ∇ and W ← (1 - lr·decay)·W - lr·mult·m, ∇ scaled by min(1, clip/(norm + 1e-6))
        with the norm of each weight ("param") or of all together ("global"). Decay is lr·λ, times the weight's
        multiplier with `decay_follows_lr_mult`. `y` holds class numbers, one row of targets per sample or, for one
        output, real values; on real values "r2" takes the place of "accuracy" (tpc/runtime/models/targets.py). An
        adapted network learns from `support` first; its loss is the mean over the samples of a task, summed over tasks.
        Raises DivergedError where the loss, a gradient or what would be stored is not finite; the step is not taken
        then, and the state is as it was.
        """
        chosen = StepOptions(**options)
        rates, keeps = chosen.per_weight(self.weights)
        rows = self._inputs(x)
        if not len(rows):
            raise UsageError("expected at least one sample in a batch, got none")
        check_loss(chosen.loss, self.classes)
        wanted = read_targets(y, len(rows), self.classes, chosen.loss)
        targets = self.backend.array(wanted.rows, self.dtype)
        data = {"x": rows, "y": targets, **self._support(support, len(rows))}
        starts = bool(chosen.momentum) and not self._momentum
        if starts:
            self._start_momentum()
        step = Step(self, self._state, self._compiled(chosen.loss), chosen, rates, keeps)
        try:
            metrics = step.computed(data, wanted, self._momentum)
        except DivergedError:
            if starts:
                self._forget_momentum()
            raise
        step.apply(folds=bool(self.folds))
        return metrics

    def _start_momentum(self) -> None:
        self._momentum = True
        for name in self._stores:
            self._state[name].with_momentum()

    def _forget_momentum(self) -> None:
        """Undo `_start_momentum`, before any step."""
        self._momentum = False
        for name in self._stores:
            self._state[name].without_momentum()

    # --- arguments ---------------------------------------------------------------------------------------------

    def _inputs(self, x: ArrayLike) -> Any:
        rows = arranged(input_rows(x, self.input_shape, self.dtype), self.data_axes)
        return self.backend.array(rows, self.dtype)

    def _support(self, support: Support | None, samples: int) -> dict[str, Any]:
        """What an adapted network takes besides its samples."""
        check_given(support, self.adapts)
        if support is None:
            return {}
        x = self._inputs(support.x)
        if not len(x):
            raise UsageError("expected at least one support sample, got none")
        weights = {name: self.backend.array(v, self.dtype) for name, v in support.weights(samples).items()}
        answers = read_targets(support.y, len(x), self.classes, what="support targets")
        targets = self.backend.array(answers.rows, self.dtype)
        return {"x_support": x, "y_support": targets, **weights}

    # --- state -------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Array]:
        """Copies of the arrays by name: `load_state` makes the same model of them (tpc/runtime/models/model_state.py).

        `<layer>.A` has every multiplier applied. A folded model has the newest atoms in `<layer>.A` and `<layer>.B`,
        the others in `<layer>.M0`, `<layer>.M1`, … (packed, backends/powers.py), which are read with the weights
        `<layer>.w`, and what they leave out as values `<layer>.T` at the points `<layer>.Z`.
        """
        return state_of(self)

    def load_state(self, arrays: Mapping[str, ArrayLike]) -> None:
        """Replace the whole state; momentum is that of the arrays, and starts at zero where they have none.

        Raises UsageError for missing or unknown names, wrong shapes and numbers that are not finite, and leaves the
        state as it was.
        """
        new, momentum = loaded_state(self, arrays)
        before = self._state, self._momentum
        self._state, self._momentum = new, momentum
        if self.folds:
            try:
                with np.errstate(all="ignore"):
                    self._module("cross_entropy").fold(new)
            except OverflowError as error:
                self._state, self._momentum = before
                raise UsageError(f"the atoms of the state cannot be folded: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write everything to one .npz file: the program's listing, dimensions and the exact state."""
        from tpc.runtime.models.saving import save

        save(self, path)

    @classmethod
    def load(cls, path: str | Path, backend: str | None = None) -> Model:
        """A model from a file written by `save`, on any backend. Raises DataError for a damaged file."""
        from tpc.runtime.models.saving import load

        return load(cls, path, backend)

    def twin(self, path: str | Path) -> Model:
        """A model like this one, of the same limit, with the state of a file that `save` wrote of it."""
        from tpc.runtime.models.saving import twin

        return twin(self, path)

    def __reduce__(self) -> tuple[Any, ...]:
        from tpc.runtime.models.saving import from_bytes, to_bytes

        return from_bytes, (type(self), to_bytes(self))

    def __copy__(self) -> Model:
        return self.__deepcopy__({})

    def __deepcopy__(self, memo: dict[int, Any]) -> Model:
        from tpc.runtime.models.saving import copied

        return copied(self)


def predicted_rows(graph: LimitGraph, rank: int) -> int:
    """Rows predicted at a time: what reading folded tensors makes of them is no larger than the tensors.

    Every place of a sample is a row of its own.
    """
    widest = max((max(1, f.points, *(packed_size(rank, m.order) for m in f.moments)) for f in graph.folds), default=1)
    places = places_of(n for n in graph.nodes if SAMPLE in n.axes and any(a.role == "rank" for a in n.axes))
    return max(16 // places, min(PREDICT_ROWS, PREDICT_NUMBERS // widest) // places, 1)
