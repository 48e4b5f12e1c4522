"""Where batches come from: a data set in a new order every epoch, or tasks with a support of their own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tpc.runtime.models.support import Support
from tpc.runtime.training.evaluation import Evaluation, ValueEvaluation, evaluate

Array = NDArray[Any]


@dataclass(frozen=True)
class Batch:
    """Samples x (N, d) and labels y (N,) of one step; of `tasks` tasks that learn from `support` first, if any."""

    x: Array
    y: Array
    support: Support | None = None
    tasks: int = 1

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of `predict` and `step`."""
        return {} if self.support is None else {"support": self.support}


class Result(Protocol):
    """What an evaluation finds."""

    @property
    def loss(self) -> float: ...

    @property
    def accuracy(self) -> float:
        """Raises UsageError where targets are real values."""

    @property
    def measure(self) -> tuple[str, float | None]:
        """What says how good it is: "accuracy", or "r2" on real values."""


class Source(Protocol):
    """What a trainer learns from and is measured on; a batch is a function of its epoch and number."""

    @property
    def batches(self) -> int:
        """Batches per epoch."""

    @property
    def measured(self) -> str:
        """What an evaluation is of: "test", "validation"."""

    @property
    def measured_size(self) -> str:
        """In words, such as "100 test samples"."""

    def batch(self, epoch: int, number: int) -> Batch: ...

    def evaluate(self, model: Any, stop: object = False) -> Result:
        """Raises `tpc.runtime.training.evaluation.Stopped` once `stop` is true."""


class Samples:
    """Training inputs (N, d) and targets in batches, ordered by (seed, epoch); measured on test arrays."""

    measured = "test"

    def __init__(
        self,
        train: tuple[Array, Array],
        test: tuple[Array, Array],
        batch_size: int,
        seed: int = 0,
        loss: str = "cross_entropy",
    ) -> None:
        self.x, self.y = train
        self.test = test
        self.batch_size = batch_size
        self.seed = seed
        self.loss = loss
        self._order: tuple[int, Array] = (-1, np.arange(0))

    @property
    def batches(self) -> int:
        """The last one may be smaller."""
        return -(-len(self.x) // self.batch_size)

    @property
    def measured_size(self) -> str:
        return f"{len(self.test[0])} test samples"

    def batch(self, epoch: int, number: int) -> Batch:
        if self._order[0] != epoch:
            self._order = (epoch, np.random.default_rng([self.seed, epoch]).permutation(len(self.x)))
        rows = self._order[1][number * self.batch_size : (number + 1) * self.batch_size]
        return Batch(self.x[rows], self.y[rows])

    def evaluate(self, model: Any, stop: object = False) -> Evaluation | ValueEvaluation:
        return evaluate(model, *self.test, self.loss, stop=stop)
