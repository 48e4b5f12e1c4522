"""The convergence check: finite networks of growing width, trained beside the limit they should approach."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tpc.compiler import Limit, compile_program
from tpc.data import load as load_data
from tpc.errors import UsageError
from tpc.passes.adapt import is_adapted
from tpc.program.axes import without
from tpc.program.nn import SAMPLE
from tpc.program.program import Program
from tpc.runtime.arguments import as_array, check_not_negative, real_array
from tpc.runtime.divergence import DivergedError
from tpc.runtime.finite import FiniteNetwork
from tpc.runtime.folding import FoldOptions
from tpc.runtime.initial import initial_state
from tpc.runtime.model import Model, build
from tpc.runtime.support import Support
from tpc.runtime.targets import check_loss, one_hot, read_targets
from tpc.tasks import kernel_check
from tpc.tasks.convergence import CheckResult

F64 = NDArray[np.float64]
Batch = tuple[F64, NDArray[Any], Support | None]
Progress = Callable[[int, int], None]  # networks done, networks in all

WIDTHS = (128, 256, 512, 1024, 2048, 4096)
HELD_OUT = 64
TASKS = 2  # that the samples of a batch belong to where a network adapts
HUGE = 1e100  # logits beyond this have diverged, if not yet to infinity
LEARNING_RATES = tuple(2.0**-k for k in range(-1, 20))
LARGEST_MOVE = 0.5  # of the logits, relative to their size
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
    **step_options: Any,
) -> CheckResult:
    """Train `seeds` networks of every width on the same batches beside the limit; compare the logits at every step.

    The π-limit of rank `rank` (8) starts as `initial_state(…, init="paper")`, in float64, but with readout
    coefficients N(0, std²/M) as in hidden matrices: logits and all gradients are then far from zero at the first step.
    `x` (N, d) and `y` (N,) hold the steps·batch training samples, then held-out ones; by default the digits of the
    program's classes. Without `lr` it is the largest of 2, 1, ½, … at which the limit's logits move by no more than
    half their own size: enough to see learning, little enough for n^(-1/2) to show at these widths. With `fold` the
    limit folds its old atoms. A network that adapts takes the first half of a batch as the support of two tasks, and
    learns from the other half. `step_options` go to `Model.step`: lr_mult, weight_decay, momentum, clip, …

    For the limits "nngp" and "ntk" kernels of random networks are compared with the limit's. Networks in NTK
    parametrization, of which readouts alone learn for "nngp", train beside gradient descent on functions with the
    limit's kernel, and for `fit_steps` (50) on the squared loss of one batch, beside the kernel's regression.
    Raises UsageError for numbers out of range and where training diverges.
    """
    counts = [("steps", steps, 0), ("seeds", seeds, 1), ("batch", batch, 1), ("seed", seed, 0)]
    if fit_steps is not None:
        counts.append(("fit_steps", fit_steps, 0))
    for name, value, least in counts:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UsageError(f"expected {name} to be a whole number from {least} on, got {value!r}")
    if lr is not None:
        check_not_negative(lr=lr)
        if lr == 0:
            raise UsageError(f"expected lr to be above 0, got {lr!r}")
    derived = compile_program(program, limit)
    (classes,) = without(program.tensor("logits").axes, (SAMPLE,))
    number = classes.size or 0
    if derived.is_kernel:
        kernel_check.refuse(step_options, fold, rank)
        sizes = _checked_widths(widths)
        fit_steps = kernel_check.FIT_STEPS if fit_steps is None else fit_steps
        inputs, labels = _samples(x, y, max(steps, min(1, fit_steps)) * batch, number, loss)
        known = kernel_check.beside(derived, inputs, labels, number, steps, batch, loss, fit_steps)
        return _beside_kernel(known, sizes, seeds, seed, lr, progress)
    if fit_steps is not None:
        raise UsageError("fit_steps are taken beside kernel limits: limit='nngp' or limit='ntk'")
    rank = RANK if rank is None else rank
    sizes = _checked_widths(widths, rank)
    inputs, labels = _samples(x, y, steps * batch, number, loss)
    ends = [*range(0, steps * batch + 1, batch), len(inputs)]
    *batches, held_out = (_batch(inputs[a:b], labels[a:b], is_adapted(program)) for a, b in pairwise(ends))
    mode = "exact" if fold is None else "folded"
    model = build(derived, inputs.shape[1], rank, dtype="float64", seed=seed, init="paper", mode=mode, fold=fold)
    state = _initial(derived, model, seed)
    options = {**step_options, "loss": loss}
    rate = _moderate_rate(model, state, batches, held_out, options) if lr is None else lr
    options["lr"] = rate

    model.load_state(state)
    wanted = _trajectory(model, batches, held_out, options)
    _require_finite(wanted, "limit", rate)
    if fold is not None and not model.remainders:
        raise UsageError(
            f"nothing was folded: {max(model.atoms.values())} atoms stay within the window of {fold.window}; "
            "give a smaller one (--window 0)"
        )
    norms = _rms(wanted)
    if not norms.all():
        raise UsageError(f"the limit of {program.name} has zero logits: there is no relative error to measure")
    squares = np.zeros((steps + 1, len(sizes)))
    for i, n in enumerate(sizes):
        for k in range(seeds):
            network = FiniteNetwork(derived, state, n, seed=seed * seeds + k)
            found = _trajectory(network, batches, held_out, options)
            _require_finite(found, f"network of width {n}", rate)
            squares[:, i] += np.square(found - wanted).mean(axis=(1, 2)) / seeds
            if progress is not None:
                progress(i * seeds + k + 1, len(sizes) * seeds)
    return CheckResult(
        program.name,
        limit,
        rank,
        seeds,
        rate,
        sizes,
        tuple(f"step {t}" for t in range(steps + 1)),
        tuple(tuple(map(float, row)) for row in np.sqrt(squares) / norms[:, None]),
        tuple(float(m) for m in _rms(wanted - wanted[0]) / norms[0]),
        model.fold.degree if fold is not None else None,
    )


def _beside_kernel(
    known: kernel_check.Beside, widths: tuple[int, ...], seeds: int, seed: int, lr: float | None,
    progress: Progress | None,
) -> CheckResult:  # fmt: skip
    rate = known.moderate_rate() if lr is None else lr

    def done(count: int) -> None:
        if progress is not None:
            progress(count, len(widths) * seeds)

    try:
        errors, moved = kernel_check.compare(known, widths, seeds, seed, rate, done)
    except DivergedError as error:
        raise UsageError(
            f"training of the networks diverged at learning rate {rate:g} ({error.where}); give a smaller one"
        ) from error
    _require_finite(errors, "networks", rate)
    limit = known.limit
    rows = tuple(tuple(map(float, row)) for row in errors)
    moves = tuple(None if i < len(known.kernels) else float(m) for i, m in enumerate(moved))
    return CheckResult(
        limit.program.name, limit.kind, None, seeds, rate, widths, known.rows(), rows, moves, fit=known.fit()
    )  # fmt: skip


def _batch(x: F64, y: NDArray[Any], adapts: bool) -> Batch:
    """The samples as they are, or the second half of them with the first one as support, task by task in turn."""
    if not adapts:
        return x, y, None
    half = len(x) // 2
    if half < TASKS:
        raise UsageError(f"expected at least {2 * TASKS} samples in a batch of a network that adapts, got {len(x)}")
    tasks, queries = np.arange(half) % TASKS, np.arange(len(x) - half) % TASKS
    return x[half:], y[half:], Support(x[:half], y[:half], tasks, queries)


def _trajectory(
    network: Model | FiniteNetwork, batches: Sequence[Batch], held_out: Batch, options: Mapping[str, Any]
) -> F64:
    """Logits of the held-out samples before the first and after every step, shape (steps + 1, N, classes)."""
    x, _, known = held_out
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = [network.predict(x, known)]
        for inputs, targets, support in batches:
            try:
                network.step(inputs, targets, support=support, **options)
            except DivergedError:  # told by the logits, which are compared
                found.append(np.full_like(found[0], np.nan))
                continue
            found.append(network.predict(x, known))
    return np.stack(found)


def _moderate_rate(
    model: Model, state: Mapping[str, F64], batches: Sequence[Batch], held_out: Batch, options: Mapping[str, Any]
) -> float:
    """The largest of the rates tried at which the logits move by at most half their own size."""
    for rate in LEARNING_RATES:
        model.load_state(state)
        values = _trajectory(model, batches, held_out, {**options, "lr": rate})
        if (np.abs(values) < HUGE).all() and (_rms(values - values[0]) <= LARGEST_MOVE * _rms(values)[0]).all():
            return rate
    raise UsageError(f"training of the limit diverges even at learning rate {LEARNING_RATES[-1]:g}")


def _require_finite(values: F64, what: str, rate: float) -> None:
    if not (np.abs(values) < HUGE).all():
        raise UsageError(f"training of the {what} diverged at learning rate {rate:g}; give a smaller one")


def _rms(values: F64) -> F64:
    return np.asarray(np.sqrt(np.square(values).mean(axis=(1, 2))))


def _initial(derived: Limit, model: Model, seed: int) -> dict[str, F64]:
    """The paper's initial state, but with readout coefficients of std scale/√M in place of scale/M."""
    state = initial_state(derived.graph(), model.sizes, model.rank, seed, "paper")
    for s in derived.graph().stores:
        if s.readout:
            state[s.coefficients.name] *= math.sqrt(max(1, len(state[s.coefficients.name])))
    return state


def _samples(
    x: ArrayLike | None, y: ArrayLike | None, train: int, classes: int, loss: str
) -> tuple[F64, NDArray[Any]]:
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
    if inputs.ndim != 2 or given.ndim == 0 or len(given) != len(inputs):
        raise UsageError(f"expected x (N, d) and N labels, got shapes {inputs.shape} and {given.shape}")
    _check_enough(len(inputs) - 1, train)
    return inputs, read_targets(given, len(inputs), classes, loss, "y").rows.astype(np.float64)


def _check_enough(available: int, train: int) -> None:
    if available < train:
        raise UsageError(f"expected {train} training samples and held-out ones, got {available}; take fewer steps")


def _checked_widths(widths: Sequence[int], rank: int = 1) -> tuple[int, ...]:
    sizes = tuple(sorted(set(widths)))
    if len(sizes) < 3:
        given = ", ".join(map(str, sizes)) or "none"
        raise UsageError(f"expected at least three widths to fit a slope to, got {given}")
    if sizes[0] < rank:
        raise UsageError(f"expected widths of at least the rank {rank}, got {sizes[0]}")
    return sizes
