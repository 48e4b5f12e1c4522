"""The convergence check: finite networks of growing width, trained beside the limit they should approach."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.compiler import Limit, compile_program
from tpc.data import load as load_data
from tpc.errors import UsageError
from tpc.passes.adapt import is_adapted
from tpc.program.axes import SAMPLE, without
from tpc.program.program import Program
from tpc.runtime.models.arguments import as_array, check_not_negative, real_array
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.models.folding import FoldOptions
from tpc.runtime.models.input_shape import sample_axes, shaped
from tpc.runtime.models.model import build
from tpc.runtime.models.targets import check_loss, one_hot, read_targets
from tpc.tasks import kernel_check, pi_check
from tpc.tasks.convergence import POWER, CheckResult, Even, Fit, rows_of_errors
from tpc.tasks.intervals import Deviation
from tpc.tasks.pi_check import Course, Done

F64 = NDArray[np.float64]
Progress = Callable[[int, int, str], None]  # work done, work in all, and what is being done

WIDTHS = (128, 256, 512, 1024, 2048, 4096)
HELD_OUT = 64
RANK = 8


def run_check(
    program: Program,
    *,
    limit: str = "pi",
    x: ArrayLike | None = None,
    y: ArrayLike | None = None,
    widths: Sequence[int] = WIDTHS,
    steps: int = 3,
    seeds: int = 8,
    rank: int | None = None,
    batch: int = 16,
    lr: float | None = None,
    seed: int = 0,
    loss: str = "cross_entropy",
    progress: Progress | None = None,
    fold: FoldOptions | None = None,
    fit_steps: int | None = None,
    input_scale: float = 1.0,
    **step_options: Any,
) -> CheckResult:
    """Train `seeds` networks of every width on the same batches beside the limit; compare the logits at every step.

    The π-limit of rank `rank` (8) starts as `initial_state(…, init="paper")`, in float64, but with readout
    coefficients N(0, std²/M) as in hidden matrices: logits and all gradients are then far from zero at the first step.
    `x` (N, d) and `y` (N,) hold the steps·batch training samples, then held-out ones; by default the digits of the
    program's classes; `input_scale` multiplies x. Without `lr` it is the largest of 2, 1, ½, … at which the limit's
    logits move by no more than half their own size: enough to see learning, little enough for n^(-1/2) to show at
    these widths. With `fold` the limit folds its old atoms. A network that adapts takes the first half of a batch as
    the support of two tasks, and learns from the other half. `step_options` go to `Model.step`: lr_mult,
    weight_decay, momentum, clip, …

    For the limits "nngp" and "ntk" kernels of random networks are compared with the limit's. Networks in NTK
    parametrization, of which readouts alone learn for "nngp", train beside gradient descent on functions with the
    limit's kernel, and for `fit_steps` (50) on the squared loss of one batch, beside the kernel's regression.
    Raises UsageError for numbers out of range and where training diverges.
    """
    _check_counts(steps=(steps, 0), seeds=(seeds, 1), batch=(batch, 1), seed=(seed, 0), fit_steps=(fit_steps, 0))
    check_not_negative(input_scale=input_scale)
    if lr is not None:
        check_not_negative(lr=lr)
        if lr == 0:
            raise UsageError(f"expected lr to be above 0, got {lr!r}")
    derived = compile_program(program, limit)
    plan = Plan(derived, tuple(sorted(set(widths))), steps, seeds, batch, lr, seed, loss, input_scale, progress)
    if derived.is_kernel:
        kernel_check.refuse(step_options, fold, rank)
        return _beside_kernel(plan, x, y, kernel_check.FIT_STEPS if fit_steps is None else fit_steps)
    if fit_steps is not None:
        raise UsageError("fit_steps are taken beside kernel limits: limit='nngp' or limit='ntk'")
    return _beside_pi(plan, x, y, RANK if rank is None else rank, fold, step_options)


@dataclass(frozen=True)
class Plan:
    """What is compared, with which networks."""

    derived: Limit
    widths: tuple[int, ...]
    steps: int
    seeds: int
    batch: int
    lr: float | None
    seed: int
    loss: str
    input_scale: float
    progress: Progress | None

    def samples(self, x: ArrayLike | None, y: ArrayLike | None, train: int) -> tuple[F64, NDArray[Any]]:
        """`train` training samples followed by held-out ones, with the inputs scaled."""
        inputs, labels = _samples(x, y, train, self.classes, self.loss)
        return shaped(inputs, sample_axes(self.derived.program)) * self.input_scale, labels

    @property
    def classes(self) -> int:
        (axis,) = without(self.derived.program.tensor("logits").axes, (SAMPLE,))
        return axis.size or 0

    def check_widths(self, rank: int = 1) -> None:
        """Raise UsageError for widths that no slope can be fitted to or that are below the rank."""
        if len(self.widths) < 3:
            given = ", ".join(map(str, self.widths)) or "none"
            raise UsageError(f"expected at least three widths to fit a slope to, got {given}")
        if self.widths[0] < rank:
            raise UsageError(f"expected widths of at least the rank {rank}, got {self.widths[0]}")

    def told(self, even: Even, power: int) -> Done:
        """Counts the networks that are done, by the time that their widths take, for `progress`."""
        total = self.seeds * sum(n**power for n in self.widths) + even.count * even.width
        spent = 0

        def done(width: int, what: str) -> None:
            nonlocal spent
            spent += width if what.startswith(("evenly", "kernels")) else width**power
            if self.progress is not None:
                self.progress(spent, total, what)

        return done


def _beside_pi(
    plan: Plan, x: ArrayLike | None, y: ArrayLike | None, rank: int, fold: FoldOptions | None,
    step_options: Mapping[str, Any],
) -> CheckResult:  # fmt: skip
    derived, program, adapts = plan.derived, plan.derived.program, is_adapted(plan.derived.program)
    plan.check_widths(rank)
    inputs, labels = plan.samples(x, y, plan.steps * plan.batch)
    ends = [*range(0, plan.steps * plan.batch + 1, plan.batch), len(inputs)]
    *batches, held_out = (pi_check.batch_of(inputs[a:b], labels[a:b], adapts) for a, b in pairwise(ends))
    mode = "exact" if fold is None else "folded"
    model = build(derived, inputs.shape[1:], rank, dtype="float64", seed=plan.seed, init="paper", mode=mode, fold=fold)
    state = pi_check.initial(derived, model, plan.seed)
    course = Course(batches, held_out, {**step_options, "loss": plan.loss})
    rate = pi_check.moderate_rate(model, state, course) if plan.lr is None else plan.lr
    course = replace(course, options={**course.options, "lr": rate})

    limit = pi_check.expected(model, state, course)
    wanted = limit.logits
    if not pi_check.rms(wanted).all():
        raise UsageError(f"the limit of {program.name} has zero logits: there is no relative error to measure")
    allowed: list[float] = []
    if fold is not None:
        pi_check.require_folded(model, course, state)
        exact = build(derived, inputs.shape[1:], rank, dtype="float64", seed=plan.seed)
        apart = pi_check.expected_alike(exact, state, course, limit)
        allowed = limit.distances(apart, fold.tolerance)
    even = pi_check.even_networks(plan.widths[-1], plan.seeds)
    done = plan.told(even, POWER[derived.entry.builds])
    errors = pi_check.random_errors(derived, state, course, wanted, plan.widths, plan.seeds, plan.seed, done)
    deviations = pi_check.mean_deviations(derived, state, course, limit, even, plan.seed, done, allowed)
    rows = tuple(f"step {t}" for t in range(plan.steps + 1))
    moved = tuple(float(m) for m in pi_check.rms(wanted - wanted[0]) / pi_check.rms(wanted)[0])
    degree = model.fold.degree if fold is not None else None
    return _result(plan, rank, rate, rows, errors, deviations, moved, even, degree=degree)


def _beside_kernel(plan: Plan, x: ArrayLike | None, y: ArrayLike | None, fit_steps: int) -> CheckResult:
    plan.check_widths()
    inputs, labels = plan.samples(x, y, max(plan.steps, min(1, fit_steps)) * plan.batch)
    known = kernel_check.beside(
        plan.derived, inputs, labels, plan.classes, plan.steps, plan.batch, plan.loss, fit_steps
    )  # fmt: skip
    rate = known.moderate_rate() if plan.lr is None else plan.lr
    done = plan.told(kernel_check.wide_networks(plan.widths[-1], plan.seeds), POWER[plan.derived.entry.builds])
    try:
        found = kernel_check.compare(known, plan.widths, plan.seeds, plan.seed, rate, done)
    except DivergedError as error:
        raise UsageError(
            f"training of the networks diverged at learning rate {rate:g} ({error.where}); give a smaller one"
        ) from error
    pi_check.require_finite(found.errors, "networks", rate)
    moved = tuple(None if i < len(known.kernels) else float(m) for i, m in enumerate(found.moved))
    return _result(
        plan, None, rate, known.rows(), found.errors, found.deviations, moved, found.even, fit=known.fit()
    )  # fmt: skip


def _result(
    plan: Plan, rank: int | None, rate: float, rows: tuple[str, ...], errors: F64, deviations: tuple[Deviation, ...],
    moved: tuple[float | None, ...], even: Even, *, degree: int | None = None, fit: Fit | None = None,
) -> CheckResult:  # fmt: skip
    means, slopes = rows_of_errors(rows, plan.widths, errors)
    derived = plan.derived
    return CheckResult(
        derived.program.name, derived.kind, rank, plan.seeds, rate, plan.widths, rows, means, slopes, deviations,
        moved, even, degree, fit,
    )  # fmt: skip


def _check_counts(**counts: tuple[int | None, int]) -> None:
    """Raise UsageError for a number that is given and not whole or below its least value."""
    for name, (value, least) in counts.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
            raise UsageError(f"expected {name} to be a whole number from {least} on, got {value!r}")


def _samples(x: ArrayLike | None, y: ArrayLike | None, train: int, classes: int, loss: str) -> tuple[F64, NDArray[Any]]:
    """`train` training samples followed by held-out ones, and rows of their targets.

    One output learns whether a digit is odd (1) or even (−1).
    """
    check_loss(loss, classes)
    if (x is None) != (y is None):
        raise UsageError("expected both x and y, or neither")
    if x is None or y is None:
        digits = load_data("digits", dtype=np.float64)
        among = classes if classes > 1 else digits.classes
        known, new = digits.train_y < among, digits.test_y < among
        _check_enough(int(known.sum()), train)
        rows = np.concatenate([digits.train_x[known][:train], digits.test_x[new][:HELD_OUT]], dtype=np.float64)
        labels = np.concatenate([digits.train_y[known][:train], digits.test_y[new][:HELD_OUT]])
        return rows, one_hot(labels, classes) if classes > 1 else np.where(labels % 2 == 1, 1.0, -1.0)[:, None]
    inputs, given = real_array(x, "x").astype(np.float64), as_array(y, "y")
    if inputs.ndim < 2 or given.ndim == 0 or len(given) != len(inputs):
        raise UsageError(f"expected x (N, d) and N labels, got shapes {inputs.shape} and {given.shape}")
    _check_enough(len(inputs) - 1, train)
    return inputs, read_targets(given, len(inputs), classes, loss, "y").rows.astype(np.float64)


def _check_enough(available: int, train: int) -> None:
    if available < train:
        raise UsageError(f"expected {train} training samples and held-out ones, got {available}; take fewer steps")
