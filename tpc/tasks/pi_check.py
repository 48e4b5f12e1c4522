"""Finite networks beside the π-limit, from one state of it: random ones over widths, evenly drawn ones for their mean.

A network of width n trains by projected SGD on the limit's batches. Besides, from the same state, each weight takes a
plain step of its own, as large as moves the logits well: what is wrong with one update of many is seen there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.compiler import Limit
from tpc.errors import GaussianError, UsageError
from tpc.runtime.models.divergence import DivergedError
from tpc.runtime.models.initial import initial_state
from tpc.runtime.models.model import Model
from tpc.runtime.models.support import Support
from tpc.runtime.networks.balanced import balanced_gaussian
from tpc.runtime.networks.finite import FiniteNetwork
from tpc.tasks.convergence import Even
from tpc.tasks.intervals import Deviation, of_mean

F64 = NDArray[np.float64]
Batch = tuple[F64, NDArray[Any], Support | None]
Done = Callable[[int, str], None]  # the width of a network that is done, and what it was

TASKS = 2  # that the samples of a batch belong to where a network adapts
HUGE = 1e100  # logits beyond this have diverged, if not yet to infinity
LEARNING_RATES = tuple(2.0**-k for k in range(-1, 20))
SMALL_RATES = tuple(2.0**-k for k in (10, 20, 30, 40))
LARGEST_MOVE, LEAST_MOVE = 0.5, 1e-11  # of the logits, relative to their size
LEAST_EVEN, LEAST_EVEN_WIDTH = 8, 4096
OUT_OF_RANGE = (DivergedError, GaussianError)  # numbers that are not finite, or beyond what a kernel is known for


@dataclass(frozen=True)
class Course:
    """What networks and limit do alike: steps on batches, then predictions for samples held out."""

    batches: Sequence[Batch]
    held_out: Batch
    options: Mapping[str, Any]

    def trajectory(self, network: Model | FiniteNetwork) -> F64:
        """Logits of the held-out samples before the first and after every step, shape (steps + 1, N, classes)."""
        x, _, known = self.held_out
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = [network.predict(x, known)]
            for inputs, targets, support in self.batches:
                try:
                    network.step(inputs, targets, support=support, **self.options)
                    found.append(network.predict(x, known))
                except OUT_OF_RANGE:  # told by the logits, which are compared
                    found.append(np.full_like(found[0], np.nan))
        return np.stack(found)

    def alone(self, model: Model, name: str, rate: float) -> F64:
        """Logits (N, classes) of the limit after a plain step of one weight on the first batch; nan out of range."""
        x, _, known = self.held_out
        inputs, targets, support = self.batches[0]
        others = {other: 0.0 for other in model.weights if other != name}
        try:
            model.step(inputs, targets, lr=rate, lr_mult=others, loss=self.options["loss"], support=support)
            return np.asarray(model.predict(x, known))
        except OUT_OF_RANGE:
            return np.full((len(x), model.classes), np.nan)

    def network_alone(self, network: FiniteNetwork, steps: Mapping[str, Alone]) -> list[F64]:
        """`alone` of a network, for every weight that has a step."""
        if not steps:
            return []
        x, _, known = self.held_out
        inputs, targets, support = self.batches[0]
        gradients = network.gradients(inputs, targets, self.options["loss"], support)
        return [network.stepped(name, gradients[name], s.rate).predict(x, known) for name, s in steps.items()]


def batch_of(x: F64, y: NDArray[Any], adapts: bool) -> Batch:
    """The samples as they are, or the second half of them with the first one as support, task by task in turn."""
    if not adapts:
        return x, y, None
    half = len(x) // 2
    if half < TASKS:
        raise UsageError(f"expected at least {2 * TASKS} samples in a batch of a network that adapts, got {len(x)}")
    tasks, queries = np.arange(half) % TASKS, np.arange(len(x) - half) % TASKS
    return x[half:], y[half:], Support(x[:half], y[:half], tasks, queries)


def initial(derived: Limit, model: Model, seed: int) -> dict[str, F64]:
    """The paper's initial state, but with readout coefficients of std scale/√M in place of scale/M."""
    state = initial_state(derived.graph(), model.sizes, model.rank, seed, "paper")
    for s in derived.graph().stores:
        if s.readout:
            state[s.coefficients.name] *= math.sqrt(max(1, len(state[s.coefficients.name])))
    return state


def moderate_rate(model: Model, state: Mapping[str, F64], course: Course) -> float:
    """The largest of the rates tried at which the logits move by at most half their own size."""
    for rate in LEARNING_RATES:
        model.load_state(state)
        values = Course(course.batches, course.held_out, {**course.options, "lr": rate}).trajectory(model)
        if (np.abs(values) < HUGE).all() and (rms(values - values[0]) <= LARGEST_MOVE * rms(values)[0]).all():
            return rate
    raise UsageError(f"training of the limit diverges even at learning rate {LEARNING_RATES[-1]:g}")


@dataclass(frozen=True)
class Alone:
    """A step of one weight alone: its rate, and by how much it changes the logits (N, classes)."""

    rate: float
    change: F64


def steps_alone(model: Model, state: Mapping[str, F64], course: Course, start: F64) -> dict[str, Alone]:
    """For every weight the step that moves the logits by a quarter to a half of their size.

    Weights that do not move them have none.
    """
    found = {}
    size = float(rms(start[None])[0])
    for name in model.weights if course.batches else ():

        def step(rate: float, name: str = name) -> tuple[float, F64]:
            model.load_state(state)
            change = course.alone(model, name, rate) - start
            moved = float(rms(change[None])[0]) / size
            return moved if math.isfinite(moved) else math.inf, change

        tried = ((rate, step(rate)[0]) for rate in SMALL_RATES)
        small, least = next(((rate, moved) for rate, moved in tried if moved <= LARGEST_MOVE), (1.0, 0.0))
        if least < LEAST_MOVE:
            continue
        exponent = math.floor(math.log2(LARGEST_MOVE * small / least))
        for rate in (2.0**k for k in range(exponent, exponent - 20, -1)):
            moved, change = step(rate)
            if moved <= LARGEST_MOVE:
                found[name] = Alone(rate, change)
                break
    return found


def random_errors(
    derived: Limit, state: Mapping[str, F64], course: Course, wanted: F64, widths: Sequence[int], seeds: int,
    seed: int, done: Done,
) -> F64:  # fmt: skip
    """Errors (steps + 1, widths, seeds) of networks at random, relative to the size of the limit's logits."""
    errors = np.zeros((len(wanted), len(widths), seeds))
    for i, n in enumerate(widths):
        for k in range(seeds):
            found = course.trajectory(FiniteNetwork(derived, state, n, seed=seed * seeds + k))
            require_finite(found, f"network of width {n}", course.options["lr"])
            errors[:, i, k] = rms(found - wanted)
            done(n, f"networks of width {n}")
    return errors / rms(wanted)[:, None, None]


def even_networks(largest: int, seeds: int) -> Even:
    """How many networks are averaged, and their width: a power of two of at least twice the largest."""
    return Even(max(2 * seeds, LEAST_EVEN), max(1 << (2 * largest - 1).bit_length(), LEAST_EVEN_WIDTH), "evenly drawn")


@dataclass(frozen=True)
class Expected:
    """What the limit has for the samples held out: logits before and after every step, and steps of one weight."""

    logits: F64
    alone: Mapping[str, Alone]

    def rows(self) -> list[tuple[str, F64, float]]:
        """What means are compared in: the name, what is expected (N, classes), and its size.

        Where next to nothing is expected the size is the hundredth part of the logits'.
        """
        changes = np.diff(self.logits, axis=0, prepend=0)
        names = ["the initial logits", *(f"the change by step {t}" for t in range(1, len(changes)))]
        found = [*zip(names, changes), *((f"the change by {name} alone", a.change) for name, a in self.alone.items())]
        least = 0.01 * float(rms(self.logits)[0])
        return [(name, value, max(float(rms(value[None])[0]), least)) for name, value in found]

    def distances(self, other: Expected, most: float) -> list[float]:
        """How far two limits are apart in every row, relative to its size, up to `most`."""
        pairs = zip(self.rows(), other.rows())
        return [min(float(rms((a - b)[None])[0]) / size, most) for (_, a, size), (_, b, _) in pairs]


def expected(model: Model, state: Mapping[str, F64], course: Course) -> Expected:
    """What the limit does from a state, at the course's rate and with the rates that suit its weights."""
    model.load_state(state)
    logits = course.trajectory(model)
    require_finite(logits, "limit", course.options["lr"])
    return Expected(logits, steps_alone(model, state, course, logits[0]))


def expected_alike(model: Model, state: Mapping[str, F64], course: Course, other: Expected) -> Expected:
    """The same at the rates of another limit."""
    model.load_state(state)
    logits, alone = course.trajectory(model), {}
    for name, one in other.alone.items():
        model.load_state(state)
        alone[name] = Alone(one.rate, course.alone(model, name, one.rate) - logits[0])
    return Expected(logits, alone)


def mean_deviations(
    derived: Limit, state: Mapping[str, F64], course: Course, limit: Expected, even: Even, seed: int, done: Done,
    allowed: Sequence[float] = (),
) -> tuple[Deviation, ...]:  # fmt: skip
    """The deviations of evenly drawn networks in every row of the limit, of which so much is `allowed`."""
    found = []
    for k in range(even.count):
        network = FiniteNetwork(derived, state, even.width, seed=seed * even.count + k, draw=balanced_gaussian)
        alone = course.network_alone(network, limit.alone)
        logits = course.trajectory(network)
        require_finite(logits, f"network of width {even.width}", course.options["lr"])
        found.append([*np.diff(logits, axis=0, prepend=0), *(a - logits[0] for a in alone)])
        done(even.width, f"evenly drawn networks of width {even.width}")
    deviations = []
    for j, (row, wanted, size) in enumerate(limit.rows()):
        d = of_mean(row, np.stack([f[j] for f in found]) - wanted, size)
        more = allowed[j] if allowed else 0.0
        deviations.append(replace(d, bias=d.bias + more, tolerance=d.tolerance + more))
    return tuple(deviations)


def require_folded(model: Model, course: Course, state: Mapping[str, F64]) -> None:
    """Raise UsageError where a folded limit keeps every atom of the course."""
    model.load_state(state)
    course.trajectory(model)
    if not model.remainders:
        raise UsageError(
            f"nothing was folded: {max(model.atoms.values())} atoms stay within the window of {model.fold.window}; "
            "give a smaller one (--window 0)"
        )


def require_finite(values: F64, what: str, rate: float) -> None:
    """Raise UsageError where training diverged."""
    if not (np.abs(values) < HUGE).all():
        raise UsageError(f"training of the {what} diverged at learning rate {rate:g}; give a smaller one")


def rms(values: F64) -> F64:
    """Root mean squares over all but the first axis."""
    return np.asarray(np.sqrt(np.square(values).mean(axis=tuple(range(1, values.ndim)))))
