"""How much memory a training will take, told before it starts, and what to change where it does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, log, prod
from typing import Any

import numpy as np

from tpc.available import Available
from tpc.derivation import Derivation
from tpc.errors import UserError
from tpc.limits.fold import is_folded
from tpc.limits.graph import LimitGraph
from tpc.limits.store import Append, Store
from tpc.lower.footprint import WIDE, Footprint, table_bytes
from tpc.lower.instructions import Lowered
from tpc.lower.lengths import Lengths, length_of
from tpc.lower.lowered import Stages, lower
from tpc.program.axes import SAMPLE, SUPPORT
from tpc.runtime.models.backend import load_backend
from tpc.runtime.models.folding import FoldOptions, numbers_stored, outer_numbers
from tpc.runtime.models.initial import shape_of
from tpc.runtime.models.input_shape import Shape, axis_sizes, sample_axes, sample_shape
from tpc.runtime.models.model import predicted_rows
from tpc.runtime.training.episodic import tasks_at_once

LIBRARIES = 175_000_000  # Python with the packages that training loads, measured
PLOTS = 95_000_000  # what the plots and the report at the end load, measured
ALLOCATOR = 1.05
EVALUATED = 256  # rows that an evaluation predicts at a time


@dataclass(frozen=True)
class Training:
    """What decides the memory of a training.

    Every one of `epochs` steps over `samples` samples, `batch` at a time; `data_bytes` is the size of the data set in
    memory. In few-shot learning a batch holds the queries of `tasks` tasks, which have `support` samples besides, in
    all; `tasks` is 0 otherwise. `done` samples, repetitions counted, lie behind a run that is resumed, which can take
    more epochs or fewer unless `extendable` is false. The other fields are the options of `Limit.build` and
    `Model.step`.
    """

    input_dim: Shape
    rank: int
    samples: int
    batch: int
    epochs: int = 1
    data_bytes: int = 0
    backend: str = "numpy"
    dtype: str = "float32"
    mode: str = "exact"
    storage: str | None = None
    fold: FoldOptions | None = None
    momentum: float = 0.0
    clip: bool = False
    loss: str = "cross_entropy"
    done: int | None = None
    support: int = 0
    tasks: int = 0
    extendable: bool = True

    def of_tasks(self, tasks: int) -> Training:
        """The same steps with another number of tasks in each."""
        samples, batch, support = (n * tasks // self.tasks for n in (self.samples, self.batch, self.support))
        return replace(self, samples=samples, batch=batch, support=support, tasks=tasks)


@dataclass(frozen=True)
class Prediction:
    """The peak of a training in bytes, by what takes them."""

    parts: Mapping[str, int]

    @property
    def peak(self) -> int:
        """All parts together, and a little more for what the allocator cannot use again."""
        return ceil(ALLOCATOR * sum(self.parts.values()))

    def describe(self) -> str:
        """Every part of at least a fiftieth, the largest first."""
        found = sorted(self.parts.items(), key=lambda part: -part[1])
        return ", ".join(f"{gigabytes(n)} {name}" for name, n in found if n >= self.peak / 50)


def gigabytes(count: float) -> str:
    """268_400_000 → '0.27 GB'."""
    return f"{count / 1e9:,.{1 if count >= 1e10 else 2}f} GB"


def predict_peak(limit: Derivation, training: Training) -> Prediction:
    """The most memory that a training takes; nothing large is allocated to tell.

    Raises UserError where mode "folded" cannot fold the program, UsageError for an unknown backend or loss.
    """
    return _Predictor(limit, training.loss)(training)


def require_memory(
    limit: Derivation, training: Training, free: Callable[[], Available | None] | None = None
) -> Prediction:  # fmt: skip
    """The prediction of a training that fits. Raises UserError, with what would fit, for one that does not.

    The data set is loaded by now: what is free does not hold it and the libraries any more. `free` tells what is left,
    by default the backend itself.
    """
    predictor, backend = _Predictor(limit, training.loss), load_backend(training.backend)
    prediction, left = predictor(training), (free or backend.available)()
    if left is None:
        return prediction
    room = left.bytes + (0 if backend.DEVICE else LIBRARIES + training.data_bytes)
    if prediction.peak <= room:
        return prediction
    fitting = list(_fitting(predictor, training, room))
    raise UserError(
        f"this training needs about {gigabytes(prediction.peak)} of memory at its peak: {prediction.describe()}. "
        f"It can have {gigabytes(max(0, room))} ({left.limit}). "
        + (f"What would fit: {'; '.join(fitting)}." if fitting else "No change of one option makes it fit.")
    )


class _Predictor:
    """Predicts for one limit; remembers what it lowered."""

    def __init__(self, limit: Derivation, loss: str) -> None:
        self._limit = limit
        self._loss = loss
        self._lowered = lru_cache(maxsize=32)(self._lower)
        self._degree = lru_cache(maxsize=32)(self._find_degree)

    def _lower(self, degree: int | None, halves: bool, points: int, momentum: bool, stages: Stages) -> Lowered:
        return lower(self._limit.graph(self._loss, degree, halves, points), momentum, stages=stages)

    def degree(self, t: Training) -> int | None:
        """The degree that mode "folded" folds to."""
        return self._degree(_options(t)) if t.mode == "folded" else None

    def _sizes(self, t: Training) -> dict[str, int]:
        """The lengths of the axes of a sample."""
        axes = sample_axes(self._limit.program)
        return axis_sizes(axes, sample_shape(axes, t.input_dim))

    def _find_degree(self, fold: FoldOptions) -> int:
        return fold.degree_for(self._limit.graph())

    def __call__(self, t: Training) -> Prediction:
        backend = load_backend(t.backend)
        lowered = self._lowered(self.degree(t), backend.HALVES, _options(t).points, t.momentum > 0, backend.stages)
        graph, footprint, item = lowered.graph, backend.footprint, np.dtype(t.dtype).itemsize
        sizes = self._sizes(t)
        rows = {
            s.name: footprint.atom(_widths(s, t.rank, sizes), item, t.storage, t.momentum > 0) for s in graph.stores
        }
        atoms = {s.name: _stored(graph, s, t, max(t.epochs * t.samples, t.done or 0)) for s in graph.stores}
        lengths = Lengths({**sizes, SUPPORT.name: t.support}, t.rank, item, atoms, rows)
        tensors = {f.store.name: item * numbers_stored(f, t.rank) for f in graph.folds}
        parts = {} if backend.DEVICE else {"Python and libraries": LIBRARIES, "data set": t.data_bytes}
        segment = _options(t).rows if graph.folds else None
        for name, n in atoms.items():
            parts[f"atoms of {name}"] = footprint.atoms(n, rows[name], segment)
        parts |= {f"folded atoms of {name}": n for name, n in tensors.items()}
        matrices = sum(outer_numbers(f, t.rank) for f in graph.folds if any(m.order == 2 for m in f.moments))
        parts["rounded folded matrices"] = footprint.copied(t.storage, matrices, t.rank)
        weights = item * sum(prod(shape_of(u.state.axes, lengths.sizes, t.rank)) for u in graph.accumulated)
        parts["other weights"] = weights * (2 if t.momentum else 1)
        parts["tables for folding"] = table_bytes({m.order for f in graph.folds for m in f.moments}, t.rank)
        batch = max(1, min(t.batch, t.samples))
        folded = max([t.rank, *(_per_step(graph, s, batch, t.support) + _options(t).rows for s in graph.stores)])
        step = footprint.step(lowered, lengths, batch, t.clip, folded)
        rows_predicted = predicted_rows(graph, t.rank)
        answered, shown = _answered(t, rows_predicted) if t.tasks else (min(EVALUATED, rows_predicted), 0)
        answering = replace(lengths, sizes={**lengths.sizes, SUPPORT.name: shown})
        evaluation = footprint.function(lowered.predict, answering, answered)
        parts["products kept within a step"] = step.lasting + evaluation.lasting
        work = {"a step": step.passing, "evaluation": evaluation.passing}
        if not backend.DEVICE:
            work["plots"] = PLOTS
        if t.done is not None and not backend.DEVICE:  # a device gets it segment by segment
            work["reading the checkpoint"] = self._reading(graph, t, rows, tensors, atoms, footprint, sizes)
        what = max(work, key=lambda name: work[name])
        return Prediction({name: n for name, n in (parts | {what: work[what]}).items() if n})

    @staticmethod
    def _reading(
        graph: LimitGraph, t: Training, rows: Mapping[str, int], tensors: Mapping[str, int],
        atoms: Mapping[str, int], footprint: Footprint, sizes: Mapping[str, int],
    ) -> int:  # fmt: skip
        """A checkpoint is read array by array, each beside the state: less what is stored only later."""
        now = {s.name: _stored(graph, s, t, t.done or 0) for s in graph.stores}
        later = sum((atoms[name] - now[name]) * rows[name] for name in atoms)
        item = np.dtype(t.dtype).itemsize
        arrays = [
            now[s.name] * max(footprint.columns(_widths(s, t.rank, sizes), item, t.storage)) for s in graph.stores
        ]
        return max(0, max([*arrays, *tensors.values()], default=0) - later)


def _options(t: Training) -> FoldOptions:
    return t.fold or FoldOptions()


def _per_step(graph: LimitGraph, s: Store, batch: int, support: int) -> int:
    """Atoms that a store gains in a step."""
    updates = [u for _, changes in graph.updates for u in changes if isinstance(u, Append) and u.store.name == s.name]
    sizes = {SAMPLE.name: batch, SUPPORT.name: support}
    return sum(prod(length_of(a, sizes) for a in u.batch) for u in updates)


def _stored(graph: LimitGraph, s: Store, t: Training, samples: int) -> int:
    """The most atoms that a store holds one by one until so many samples are stepped over."""
    initial = t.rank if s.name == s.weight and not s.thetas else 0
    count = initial + ceil(samples / t.batch * _per_step(graph, s, t.batch, t.support))
    if t.mode != "folded" or not is_folded(s):
        return count
    options, step = _options(t), _per_step(graph, s, t.batch, t.support)
    waiting = options.window
    if t.momentum > 0:
        from backends.moments import SETTLED

        waiting = max(waiting, step * ceil(log(np.finfo(t.dtype).eps / SETTLED) / log(t.momentum)))
    return min(count, max(initial, waiting + 2 * options.rows + step))


def _widths(s: Store, rank: int, sizes: Mapping[str, int]) -> list[int]:
    """Numbers of one atom in each column."""
    columns = (s.coefficients, *s.columns, *s.thetas)
    return [prod(shape_of(c.axes[1:], sizes, rank)) for c in columns]


def _answered(t: Training, rows: int) -> tuple[int, int]:
    """Queries that an evaluation answers at a time, and the support samples of their tasks."""
    support, queries = t.support // t.tasks, t.batch // t.tasks
    tasks = tasks_at_once(support, queries, rows)
    return min(rows, tasks * queries), tasks * support


# --- advice ----------------------------------------------------------------------------------------------------------


def _fitting(predictor: _Predictor, t: Training, room: int) -> Iterator[str]:
    """Changes that make a training fit, the most useful first."""

    def peak(**changes: Any) -> int | None:
        try:
            return predictor(replace(t, **changes)).peak
        except UserError:  # not every program folds, not every backend has every type
            return None

    def told(options: str, **changes: Any) -> list[str]:
        found = peak(**changes)
        return [f"{options} (about {gigabytes(found)})"] if found is not None and found <= room else []

    def largest(option: str, value: int, changed: Callable[[int], dict[str, Any]]) -> list[str]:
        """The largest smaller value that fits, cut to two digits."""
        low, high = 0, value
        while high - low > 1:
            middle = (low + high) // 2
            found = peak(**changed(middle))
            low, high = (middle, high) if found is not None and found <= room else (low, middle)
        low = _two_digits(low)
        return told(f"{option} {low}", **changed(low)) if low else []

    def of_tasks(n: int) -> dict[str, Any]:
        fewer = t.of_tasks(n)
        return {name: getattr(fewer, name) for name in ("samples", "batch", "support", "tasks")}

    if t.done is None and t.mode == "exact":
        folded: dict[str, Any] = {"mode": "folded", "fold": None, "storage": None}
        yield from told("--mode folded", **folded) or largest(
            "--mode folded --rank", t.rank, lambda n: {**folded, "rank": n}
        )
        if t.storage in (None, *WIDE):
            name = t.backend if load_backend(t.backend).DEVICE else "native"
            narrow = {"backend": name, "dtype": "float32", "storage": "bfloat16"}
            yield from told(f"--backend {name} --storage bfloat16", **narrow)
    if t.done is None and t.mode == "folded":
        lower_degrees = range((predictor.degree(t) or 1) - 1, 0, -1)
        options = (told(f"--fold-degree {d}", fold=replace(_options(t), degree=d)) for d in lower_degrees)
        yield from next(filter(None, options), [])
    if t.done is None and t.dtype == "float64":
        yield from told("--dtype float32", dtype="float32", storage=None)
    if t.done is None:
        yield from largest("--rank", t.rank, lambda n: {"rank": n})
    if t.mode == "exact" and t.extendable:
        yield from largest("--epochs", t.epochs, lambda n: {"epochs": n})
    if t.done is None and t.tasks:
        yield from largest("--tasks", t.tasks, of_tasks)
        if t.mode == "exact":
            steps = t.samples // t.batch
            yield from largest("--batches", steps, lambda n: {"samples": n * t.batch})
    elif t.done is None and t.mode == "folded":
        yield from largest("--batch-size", t.batch, lambda n: {"batch": n})


def _two_digits(n: int) -> int:
    step: int = 10 ** max(0, len(str(n)) - 2)
    return n // step * step


__all__ = ["Prediction", "Training", "gigabytes", "predict_peak", "require_memory"]
