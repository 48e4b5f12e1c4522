"""Kernel regression: what the kernel limits of a program learn from a data set, or from the support of a task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.available import available
from tpc.compiler import compile_program
from tpc.data import Dataset
from tpc.data import load as load_data
from tpc.errors import UsageError, UserError
from tpc.limits.kinds import kernel_limits, limit_kind
from tpc.passes.adapt import is_adapted
from tpc.passes.gram_output import unadapted
from tpc.program.load import load
from tpc.runtime.files.whole import WriteError, write_atomic
from tpc.runtime.kernels.function import KernelFunction
from tpc.runtime.kernels.kernel_adaptation import KernelAdaptation
from tpc.runtime.kernels.regression import Fit, KernelRegression, centred_targets
from tpc.runtime.models.memory import gigabytes
from tpc.runtime.training import rundir
from tpc.runtime.training.episodic import FewShotEvaluation, answer
from tpc.runtime.training.rundir import MetricsLog, RunDir
from tpc.tasks.fewshot import FewShot
from tpc.tasks.job import FewShotJob
from tpc.version import VERSION

Array = NDArray[Any]
Say = Callable[[str], None]
RIDGES = (1e-4, 1e-3, 1e-2, 3e-2, 1e-1)


@dataclass(frozen=True)
class RegressJob:
    """Everything needed to repeat a regression. Ridges are relative to the mean diagonal of the kernel matrix.

    The ridge is chosen on the last `held_out` of the training samples after a shuffle by `seed`; then all are used.
    Raises UsageError for values out of range.
    """

    program: str
    limit: str = "ntk"
    function: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    data: str = "digits"
    data_dir: str | None = None
    limit_train_size: int | None = None
    backend: str = "native"
    dtype: str = "float32"
    ridges: tuple[float, ...] = RIDGES
    held_out: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.limit not in kernel_limits():
            raise UsageError(f"expected a kernel limit, {' or '.join(kernel_limits())}, got {self.limit!r}.")
        if not self.ridges or any(not 0 <= r < np.inf for r in self.ridges):
            raise UsageError(f"expected ridges ≥ 0, got {', '.join(map(str, self.ridges)) or 'none'}.")
        if not 0 < self.held_out < 1:
            raise UsageError(f"expected held_out between 0 and 1, a share of the samples, got {self.held_out}.")


@dataclass(frozen=True)
class RidgeScore:
    """A ridge and the share of right answers on held-out and on test samples."""

    ridge: float
    held_out_accuracy: float
    test_accuracy: float
    test_loss: float

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Regression:
    """Scores of every ridge, the one that the held-out samples chose, and the seconds it all took."""

    scores: tuple[RidgeScore, ...]
    chosen: RidgeScore
    seconds: float
    run: RunDir | None = None


def kernel_of(job: RegressJob | FewShotJob, limit: str, backend: str) -> KernelFunction:
    """The kernel of a program's limit, compiled; of the network before adaptation where it adapts."""
    program = load(job.program, function=job.function, **job.settings)
    if is_adapted(program):
        program = unadapted(program)
    return compile_program(program, limit).kernel_function(backend, (limit_kind(limit).kernel,))


def regress(job: RegressJob, out: Path | None = None, overwrite: bool = False, say: Say = lambda _: None) -> Regression:
    """Fit and test every ridge; with `out`, a run directory records it.

    Mean squared loss is that of centred targets. Raises UserError, with numbers, where the matrix does not fit.
    """
    with rundir.claim(out, overwrite):
        source = _source(job)
        found = _fitted(job, say)
        return found if out is None else _kept(job, source, found, rundir.create(out, "", overwrite))


def _source(job: RegressJob) -> bytes:
    """The text of the program now: it may be another one when the regression is done."""
    path = Path(job.program)
    return path.read_bytes() if path.is_file() else b""  # loading tells what is missing


def _fitted(job: RegressJob, say: Say) -> Regression:
    started = time.monotonic()
    kernel = kernel_of(job, job.limit, job.backend)
    folder = None if job.data_dir is None else Path(job.data_dir)
    data = load_data(job.data, folder, job.limit_train_size, np.dtype(job.dtype))
    require_room(len(data.train_x), np.dtype(job.dtype).itemsize)
    order = np.random.default_rng(job.seed).permutation(len(data.train_x))
    held_out = max(1, round(job.held_out * len(order)))
    say(f"{job.limit}-limit of {Path(job.program).stem} on {job.data}: {len(order)} training samples")

    def pairs(x1: Array, x2: Array | None, room: Array | None) -> Array:
        given = None if room is None else {job.limit: room}
        return kernel(x1, x2, dtype=job.dtype, out=given)[limit_kind(job.limit).kernel]

    x, y = data.train_x[order], data.train_y[order]
    model = KernelRegression(pairs, x, y, data.classes, held_out=held_out, dtype=job.dtype)
    say(f"kernel matrix of {len(x)} samples after {time.monotonic() - started:.0f} s")
    fits = []
    for ridge in sorted(job.ridges, reverse=True):
        (fit,) = model.fit([ridge])
        fits.append(fit)
        how = f"{fit.iterations} iterations" if fit.iterations else "factored"
        how += f", {time.monotonic() - started:.0f} s"
        say(f"ridge {ridge:g}: held-out accuracy {fit.held_out_accuracy:.2%} ({how})")
    scores = _tested(model, fits, data)
    chosen = max(scores, key=lambda s: s.held_out_accuracy)
    return Regression(scores, chosen, time.monotonic() - started)


def require_room(samples: int, itemsize: int) -> None:
    """Raise UserError if the kernel matrix and what comes with it do not fit into memory."""
    needed, free = int(1.15 * samples * samples * itemsize) + 600_000_000, available()
    if free is not None and needed > free.bytes:
        fits = int((max(0, free.bytes - 600_000_000) / 1.15 / itemsize) ** 0.5) // 100 * 100
        raise UserError(
            f"the kernel matrix of {samples} samples needs about {gigabytes(needed)}, and {gigabytes(free.bytes)} "
            f"can be had ({free.limit}). Use --limit-train-size {fits}"
            + (", or --dtype float32." if itemsize > 4 else ".")
        )


def _tested(model: KernelRegression, fits: list[Fit], data: Dataset) -> tuple[RidgeScore, ...]:
    """All ridges at once: the kernel between test and training samples is computed a single time."""
    width = data.classes
    together = np.concatenate([fit.coefficients for fit in fits], axis=1)
    logits = model.predict(data.test_x, together)
    found = []
    for k, fit in enumerate(fits):
        own = logits[:, k * width : (k + 1) * width]
        right = float((own.argmax(axis=1) == data.test_y).mean())
        loss = float(np.mean((own - centred_targets(data.test_y, width, own.dtype)) ** 2))
        found.append(RidgeScore(fit.ridge, float(fit.held_out_accuracy or 0.0), right, loss))
    return tuple(found)


def _kept(job: RegressJob, source: bytes, found: Regression, run: RunDir) -> Regression:
    """Record a result; one that cannot be is told in the error, for it may have taken hours."""
    try:
        return _recorded(job, source, found, run)
    except WriteError as error:
        run.discard()
        best = found.chosen
        raise UserError(
            f"{error} What is not recorded: ridge {best.ridge:g} chosen, held-out accuracy "
            f"{best.held_out_accuracy:.2%}, test accuracy {best.test_accuracy:.2%}, test loss {best.test_loss:.4f}."
        ) from error


def _recorded(job: RegressJob, source: bytes, found: Regression, run: RunDir) -> Regression:
    write_atomic(run.program_path, source)
    run.write_config({"tpc_version": VERSION, "task": "regress", **asdict(job), "ridges": list(job.ridges)})
    log = MetricsLog(run.metrics_path)
    try:
        for score in found.scores:
            log.write({"kind": "ridge", **score.to_dict(), "chosen": score is found.chosen})
        log.write({"kind": "end", "seconds": round(found.seconds, 3)})
        log.sync()
    finally:
        log.close()
    run.commit()
    return Regression(found.scores, found.chosen, found.seconds, run)


@dataclass(frozen=True)
class KernelFewShot:
    """What a kernel does on few-shot tasks: accuracy by ridge on validation tasks, and the chosen one on test tasks."""

    validation: Mapping[float, float]
    ridge: float
    test: FewShotEvaluation


def few_shot(
    job: FewShotJob,
    limit: str,
    ridges: tuple[float, ...] = (0.0, *RIDGES),
    backend: str = "native",
    say: Say = lambda _: None,
) -> KernelFewShot:
    """Answer few-shot tasks by kernel regression on their support; the ridge is chosen on validation tasks."""
    task = FewShot(job)
    kernel = kernel_of(job, limit, backend)

    def pairs(x1: Array, x2: Array) -> Array:
        return kernel(x1, x2, dtype=job.dtype)[limit_kind(limit).kernel]

    def answered(split: str, ridge: float) -> FewShotEvaluation:
        model = KernelAdaptation(pairs, job.ways, ridge)
        return answer(model, task.draw(split), job.episodes, task.table(split).alphabets, job.loss)

    validation = {}
    for ridge in ridges:
        validation[ridge] = answered("validation", ridge).accuracy
        say(f"ridge {ridge:g}: validation accuracy {validation[ridge]:.2%}")
    best = max(validation, key=lambda r: validation[r])
    return KernelFewShot(validation, best, answered("test", best))
