"""Finite networks beside a kernel limit: their kernels at random, their outputs as they train, and their regression.

In the kernel limits training is gradient descent on functions: a step on a batch B with ∂L/∂f = χ moves every output by
−η K(·, B) χ (Jacot et al. 2018). K is the NTK where all weights are trained, and the NNGP kernel where readouts and
their biases are (Lee et al. 2019, §2). On the squared loss of one batch this goes to the kernel's ridgeless regression.
A network in NTK parametrization follows from its own random start up to O(n^(-1/2)).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.compiler import Limit
from tpc.errors import UsageError
from tpc.limits.kinds import ALL, LimitKind
from tpc.runtime.kernels.empirical import empirical_kernels
from tpc.runtime.networks.drawn import finite
from tpc.runtime.networks.network import Network
from tpc.runtime.networks.parametrization import role
from tpc.tasks.convergence import Even, Fit
from tpc.tasks.intervals import Deviation, extrapolated, of_mean

F64 = NDArray[np.float64]
Array = NDArray[Any]
COMPARED = 16  # samples at which kernels are compared
RATES = tuple(2.0**-k for k in range(-8, 40))
FIT_STEPS = 50
LEAST_SEEDS, WIDE_PER_SEED, LEAST_WIDE = 4, 16, 2048
Done = Callable[[int, str], None]  # the width of a network that is done, and what it was


@dataclass(frozen=True)
class Beside:
    """The kernels (N, N) of a limit at the samples x (N, d) with targets y (N, classes), beside which networks train.

    `ends` are the bounds of the batches of `loss`. `fit_steps` are taken on the squared loss of the first `fitting`
    samples. The samples that follow all of these are held out, and compared.
    """

    limit: Limit
    x: F64
    y: Array
    classes: int
    ends: Sequence[int]
    loss: str
    fit_steps: int
    fitting: int
    kernels: Mapping[str, F64]

    @property
    def kernel(self) -> F64:
        """The one that outputs train along."""
        return self.kernels[self.limit.kind]

    @property
    def held_out(self) -> slice:
        return slice(max(self.ends[-1], self.fitting), None)

    @property
    def first(self) -> slice:
        """The samples of the fit."""
        return slice(0, self.fitting)

    def rows(self) -> tuple[str, ...]:
        """What is compared."""
        kernels = tuple(f"{name.upper()} kernel" for name in self.kernels)
        steps = tuple(f"step {t}" for t in range(1, len(self.ends)))
        return (*kernels, *steps, *(("fit",) if self.fit_steps else ()))

    # --- on functions -------------------------------------------------------------------------------------------

    def trajectory(self, start: F64, lr: float) -> F64:
        """Outputs of held-out samples before the first and after every step, from outputs `start` (N, classes)."""
        f = start.copy()
        found = [f[self.held_out].copy()]
        for a, b in pairwise(self.ends):
            f -= lr * self.kernel[:, a:b] @ slope(f[a:b], self.y[a:b], self.loss)
            found.append(f[self.held_out].copy())
        return np.stack(found)

    def fitted(self, start: F64, steps: float) -> F64:
        """Outputs of held-out samples after `steps` of the fit, `math.inf` for ridgeless regression.

        f + K(·, X) K⁻¹ (1 − (1 − K/λ)^steps)(t − f(X)) for targets t, at the rate 1/λ of the largest eigenvalue λ.
        """
        values, vectors = np.linalg.eigh(self.kernel[self.first, self.first])
        gone = 1 - (1 - values / values[-1]) ** steps
        error = self.y[self.first] - start[self.first]
        coefficients = vectors @ ((gone / values)[:, None] * (vectors.T @ error))
        return np.asarray(start[self.held_out] + self.kernel[self.held_out, self.first] @ coefficients)

    @property
    def fit_rate(self) -> float:
        """The rate of the mean squared loss at which a step is K/λ."""
        known = self.kernel[self.first, self.first]
        return float(len(known) * self.classes / (2 * np.linalg.eigvalsh(known)[-1]))

    def moderate_rate(self) -> float:
        """The largest of the rates tried at which outputs that start at zero reach at most half a random one's size."""
        size = float(np.sqrt(np.diagonal(self.kernels["nngp"])[self.held_out].mean()))
        start = np.zeros((len(self.x), self.classes))
        return next(rate for rate in RATES if _rms(self.trajectory(start, rate)) <= size / 2)

    def fit(self) -> Fit | None:
        """What the fit is, told by a start at zero."""
        if not self.fit_steps:
            return None
        start = np.zeros((len(self.x), self.classes))
        end = self.fitted(start, np.inf)
        left = _rms(self.fitted(start, self.fit_steps) - end) / _rms(end)
        return Fit(self.fit_steps, self.fitting, left)

    # --- of a network -------------------------------------------------------------------------------------------

    def trained(self, net: Network, lr: float) -> F64:
        """`trajectory` of a network."""
        rates = _rates(net, self.limit.entry)
        found = [net.predict(self.x[self.held_out])]
        for a, b in pairwise(self.ends):
            net.step(self.x[a:b], self.y[a:b], lr=lr, lr_mult=rates, loss=self.loss)
            found.append(net.predict(self.x[self.held_out]))
        return np.stack(found)

    def trained_to_fit(self, net: Network) -> F64:
        """`fitted` of a network."""
        rates = _rates(net, self.limit.entry)
        for _ in range(self.fit_steps):
            net.step(self.x[self.first], self.y[self.first], lr=self.fit_rate, lr_mult=rates, loss="mse")
        return np.asarray(net.predict(self.x[self.held_out]))

    def kernel_errors(self, width: int, seed: int) -> list[float]:
        """Mean squares by which the kernels of a random network differ, relative to those of the limit."""
        last = slice(-COMPARED, None)
        found = empirical_kernels(self.limit, self.x[last], width, seed, lazy=True)
        wanted = {name: kernel[last, last] for name, kernel in self.kernels.items()}
        return [float(np.square(found[n] - k).mean() / np.square(k).mean()) for n, k in wanted.items()]


def beside(limit: Limit, x: F64, y: Array, classes: int, steps: int, batch: int, loss: str, fit_steps: int) -> Beside:
    """The kernel limit at the samples of a check: those of `steps` batches, or of one to fit, and held-out ones."""
    fitting = batch if fit_steps else 0
    return Beside(limit, x, y, classes, range(0, steps * batch + 1, batch), loss, fit_steps, fitting, limit.kernel(x))


@dataclass(frozen=True)
class Comparison:
    """Networks beside a kernel limit.

    `errors` (rows, widths, seeds) of single networks: of kernels relative to the limit's, of outputs relative to how
    far the limit moves them. `moved` (rows,) is that, relative to the size of a random network's outputs; kernels have
    not moved. `deviations` are those of means.
    """

    errors: F64
    moved: F64
    deviations: tuple[Deviation, ...]
    even: Even


def compare(known: Beside, widths: Sequence[int], seeds: int, seed: int, lr: float, done: Done) -> Comparison:
    """Train `seeds` networks of every width along the kernel, and average the kernels of wide ones."""
    kernels, rows = len(known.kernels), known.rows()
    errors = np.zeros((len(rows), len(widths), seeds))
    gaps, moves = [], np.zeros(len(rows))
    size = 0.0
    for i, n in enumerate(widths):
        for k in range(seeds):
            number = seed * seeds + k
            errors[:kernels, i, k] = [math.sqrt(e) for e in known.kernel_errors(n, number)]
            with np.errstate(all="ignore"):  # what diverges is told by the errors
                start, found, wanted = _outputs(known, n, number, lr)
                gaps.append(found - wanted)
                errors[kernels:, i, k] = np.sqrt(np.square(found - wanted).mean(axis=(1, 2)))
                moves[kernels:] += np.square(wanted - start).mean(axis=(1, 2))
            size += float(np.square(start).mean())
            done(n, f"networks of width {n}")
    count = len(widths) * seeds
    even = wide_networks(widths[-1], seeds)
    deviations = list(_kernel_deviations(known, even, seed, done))
    with np.errstate(all="ignore"):
        reach = np.sqrt(moves[kernels:] / count)
        errors[kernels:] /= reach[:, None, None]
    if np.isfinite(errors).all():
        signed = np.stack(gaps).reshape(len(widths), seeds, *gaps[0].shape)
        names = (row if row == "fit" else f"the outputs after {row}" for row in rows[kernels:])
        deviations += [extrapolated(row, widths, signed[:, :, t], reach[t]) for t, row in enumerate(names)]
    moved = np.concatenate([np.zeros(kernels), np.sqrt(moves[kernels:] / size)])
    return Comparison(errors, moved, tuple(deviations), even)


def wide_networks(largest: int, seeds: int) -> Even:
    """How many networks have their kernels averaged, and their width."""
    return Even(WIDE_PER_SEED * max(seeds, LEAST_SEEDS), max(largest, LEAST_WIDE), "random")


def _kernel_deviations(known: Beside, even: Even, seed: int, done: Done) -> Iterator[Deviation]:
    """The deviations of the mean kernels of wide networks from those of the limit."""
    found: dict[str, list[F64]] = {name: [] for name in known.kernels}
    last = slice(-COMPARED, None)
    for k in range(even.count):
        drawn = empirical_kernels(known.limit, known.x[last], even.width, seed * even.count + k, lazy=True)
        for name, kernel in drawn.items():
            found[name].append(kernel)
        done(even.width, f"kernels of networks of width {even.width}")
    for name, kernels in found.items():
        wanted = known.kernels[name][last, last]
        yield of_mean(f"the {name.upper()} kernel", np.stack(kernels) - wanted, _rms(wanted))


def _outputs(known: Beside, width: int, seed: int, lr: float) -> tuple[F64, F64, F64]:
    """Outputs of held-out samples at the start, and after every step and the fit of a network and of the limit."""
    net = finite(known.limit.program, width, known.x.shape[1], parametrization="ntk", seed=seed, dtype="float64")
    weights, start = net.state(), net.predict(known.x)
    found, wanted = known.trained(net, lr)[1:], known.trajectory(start, lr)[1:]
    if known.fit_steps:
        net.load_state(weights)
        found = np.concatenate([found, known.trained_to_fit(net)[None]])
        wanted = np.concatenate([wanted, known.fitted(start, known.fit_steps)[None]])
    return start[known.held_out], found, wanted


def _rates(net: Network, kind: LimitKind) -> Mapping[str, float]:
    """All weights learn in the NTK limit, those after the last hidden layer in the NNGP limit."""
    if kind.learning == ALL:
        return {}
    return {name: float(role(w) in ("readout", "finite")) for name, w in net.parameters.items()}


def _rms(values: F64) -> float:
    return float(np.sqrt(np.square(values).mean()))


def slope(f: F64, y: Array, loss: str) -> F64:
    """∂L/∂f of the mean loss over the samples of a batch, for outputs f and targets y, both (N, classes)."""
    if loss == "mse":
        return np.asarray(2 * (f - y) / f.size)
    p = np.exp(f - f.max(axis=1, keepdims=True))
    return np.asarray((p / p.sum(axis=1, keepdims=True) - y) / len(f))


def refuse(options: Mapping[str, object], fold: object, rank: int | None) -> None:
    """Raise UsageError for options that a kernel limit does not have."""
    given = [name for name, value in options.items() if value]
    given += [name for name, value in (("fold", fold), ("rank", rank)) if value is not None]
    if given:
        raise UsageError(f"kernel limits are checked under plain gradient descent, without {given[0]}")
