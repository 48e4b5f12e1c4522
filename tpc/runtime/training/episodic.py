"""Few-shot batches and their evaluation: accuracy per task with a 95 % confidence interval, per alphabet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import sqrt
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tpc.errors import UsageError
from tpc.runtime.models.support import Support
from tpc.runtime.training.batches import Batch
from tpc.runtime.training.evaluation import Stopped, mean_loss

Array = NDArray[Any]
NORMAL_95 = 1.959964  # the 97.5 % quantile of N(0, 1)
ANSWERED_SAMPLES = 512  # queries, and support samples, taken at a time


class Tasks(Protocol):
    """A batch of tasks, as `tpc.data.episodes` draws them."""

    @property
    def support(self) -> Array: ...

    @property
    def support_labels(self) -> Array: ...

    @property
    def query(self) -> Array: ...

    @property
    def query_labels(self) -> Array: ...

    @property
    def classes(self) -> Array: ...


class Drawing(Protocol):
    """`tasks` tasks: those numbered index·tasks … (index+1)·tasks − 1."""

    def __call__(self, tasks: int, index: int) -> Tasks: ...


class Adapting(Protocol):
    """A network that learns from a support before it answers, so many rows at a time."""

    @property
    def predict_rows(self) -> int: ...

    def predict(self, x: Array, support: Support | None = None) -> Array: ...


def batch_of(drawn: Tasks) -> Batch:
    """Tasks (T, N·K, d) and (T, N·Q, d) as rows that know their task."""
    count, shots, dim = drawn.support.shape
    queries = drawn.query.shape[1]
    own, asked = np.repeat(np.arange(count), shots), np.repeat(np.arange(count), queries)
    support = Support(drawn.support.reshape(-1, dim), drawn.support_labels.reshape(-1), own, asked)
    return Batch(drawn.query.reshape(-1, dim), drawn.query_labels.reshape(-1), support, count)


@dataclass(frozen=True)
class FewShotEvaluation:
    """Mean loss and accuracy over tasks, half the width of the 95 % interval, and the accuracy per alphabet.

    The interval is 1.96 standard errors of the mean over tasks. An alphabet's accuracy is that of the queries whose
    class is one of its characters, whatever the other classes of their task are; with it comes their number.
    """

    loss: float
    accuracy: float
    interval: float
    tasks: int
    alphabets: Mapping[str, tuple[float, int]]

    @property
    def measure(self) -> tuple[str, float | None]:
        """What says how good it is, by name."""
        return "accuracy", self.accuracy

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and lists."""
        found = {name: {"accuracy": right, "queries": count} for name, (right, count) in self.alphabets.items()}
        return {
            "loss": self.loss,
            "accuracy": self.accuracy,
            "interval_95": self.interval,
            "tasks": self.tasks,
            "alphabets": found,
        }


def tasks_at_once(support: int, queries: int, rows: int) -> int:
    """How many tasks with so many samples are answered at a time by a network that predicts `rows` at a time.

    Whole tasks in one call, since every call takes their support again.
    """
    return max(1, min(rows, ANSWERED_SAMPLES) // max(support, queries))


def answer(
    model: Adapting,
    draw: Drawing,
    tasks: int,
    alphabets: tuple[str, ...],
    loss: str = "cross_entropy",
    stop: object = False,
) -> FewShotEvaluation:
    """Answer `tasks` ≥ 2 tasks; `alphabets` has that of every class of the table. Raises Stopped once `stop` is true.

    Raises UsageError for fewer: one task has no interval.
    """
    if tasks < 2:
        raise UsageError(f"expected at least 2 tasks, got {tasks}: the interval needs their spread.")
    first = draw(1, 0)
    at_once = min(tasks, tasks_at_once(first.support.shape[1], first.query.shape[1], model.predict_rows))
    right: list[Array] = []
    losses: list[float] = []
    classes: list[Array] = []
    for index in range(-(-tasks // at_once)):
        if stop:
            raise Stopped
        drawn = draw(at_once, index)
        batch = batch_of(drawn)
        logits = np.asarray(model.predict(batch.x, batch.support), np.float64)
        count = min(at_once, tasks - index * at_once)
        kept = count * drawn.query.shape[1]
        right.append((logits.argmax(axis=1) == batch.y)[:kept].reshape(count, -1))
        losses.append(mean_loss(logits[:kept], batch.y[:kept], loss) * count)
        classes.append(np.take_along_axis(drawn.classes, drawn.query_labels, axis=1)[:count])
    answered, asked = np.concatenate(right), np.concatenate(classes)
    per_task = answered.mean(axis=1)
    return FewShotEvaluation(
        loss=sum(losses) / tasks,
        accuracy=float(per_task.mean()),
        interval=float(NORMAL_95 * per_task.std(ddof=1) / sqrt(tasks)),
        tasks=tasks,
        alphabets=_by_alphabet(answered.reshape(-1), asked.reshape(-1), alphabets),
    )


def _by_alphabet(right: Array, asked: Array, alphabets: tuple[str, ...]) -> dict[str, tuple[float, int]]:
    named = np.array(alphabets)[asked]
    found = {}
    for name in sorted(set(alphabets)):
        own = right[named == name]
        if len(own):
            found[name] = (float(own.mean()), len(own))
    return found


class Episodes:
    """Batches of `tasks` tasks from `train`, measured on the first `episodes` tasks of `held_out`.

    `measured` is the name of the split that these are of.
    """

    def __init__(
        self,
        train: Drawing,
        held_out: Drawing,
        alphabets: tuple[str, ...],
        *,
        batches: int,
        tasks: int,
        episodes: int,
        measured: str = "validation",
        loss: str = "cross_entropy",
    ) -> None:
        self.train = train
        self.held_out = held_out
        self.alphabets = alphabets
        self.batches = batches
        self.tasks = tasks
        self.episodes = episodes
        self.measured = measured
        self.loss = loss

    @property
    def measured_size(self) -> str:
        return f"{self.episodes} {self.measured} tasks"

    def batch(self, epoch: int, number: int) -> Batch:
        return batch_of(self.train(self.tasks, epoch * self.batches + number))

    def evaluate(self, model: Any, stop: object = False) -> FewShotEvaluation:
        return answer(model, self.held_out, self.episodes, self.alphabets, self.loss, stop)
