"""Finite networks beside a kernel limit: their kernels at random, their outputs as they train, and their regression.

In the kernel limits training is gradient descent on functions: a step on a batch B with ∂L/∂f = χ moves every output by
−η K(·, B) χ (Jacot et al. 2018). K is the NTK where all weights are trained, and the NNGP kernel where readouts and
their biases are (Lee et al. 2019, §2). On the squared loss of one batch this goes to the kernel's ridgeless regression.
A network in NTK parametrization follows from its own random start up to O(n^(-1/2)).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.compiler import Limit
from tpc.errors import UsageError
from tpc.runtime.drawn import finite
from tpc.runtime.empirical import empirical_kernels
from tpc.runtime.network import Network
from tpc.runtime.parametrization import role
from tpc.tasks.convergence import Fit

F64 = NDArray[np.float64]
Array = NDArray[Any]
COMPARED = 16  # samples at which kernels are compared
RATES = tuple(2.0**-k for k in range(-8, 40))
FIT_STEPS = 50


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
        rates = _rates(net, self.limit.kind)
        found = [net.predict(self.x[self.held_out])]
        for a, b in pairwise(self.ends):
            net.step(self.x[a:b], self.y[a:b], lr=lr, lr_mult=rates, loss=self.loss)
            found.append(net.predict(self.x[self.held_out]))
        return np.stack(found)

    def trained_to_fit(self, net: Network) -> F64:
        """`fitted` of a network."""
        rates = _rates(net, self.limit.kind)
        for _ in range(self.fit_steps):
            net.step(self.x[self.first], self.y[self.first], lr=self.fit_rate, lr_mult=rates, loss="mse")
        return np.asarray(net.predict(self.x[self.held_out]))

    def kernel_errors(self, width: int, seed: int) -> list[float]:
        """Mean squares by which the kernels of a random network differ, relative to those of the limit."""
        last = slice(-COMPARED, None)
        found = empirical_kernels(self.limit, self.x[last], width, seed)
        wanted = {name: kernel[last, last] for name, kernel in self.kernels.items()}
        return [float(np.square(found[n] - k).mean() / np.square(k).mean()) for n, k in wanted.items()]


def beside(limit: Limit, x: F64, y: Array, classes: int, steps: int, batch: int, loss: str, fit_steps: int) -> Beside:
    """The kernel limit at the samples of a check: those of `steps` batches, or of one to fit, and held-out ones."""
    fitting = batch if fit_steps else 0
    return Beside(limit, x, y, classes, range(0, steps * batch + 1, batch), loss, fit_steps, fitting, limit.kernel(x))


def compare(
    known: Beside, widths: Sequence[int], seeds: int, seed: int, lr: float, done: Callable[[int], None]
) -> tuple[F64, F64]:
    """Errors (rows, widths), and how far outputs have moved (rows,) relative to their size at random, for `rows`.

    Errors are root mean squares over seeds, samples and classes: of kernels relative to the limit's, of outputs
    relative to how far the limit has moved them. Kernels have not moved.
    """
    kernels = len(known.kernels)
    squares, moves = (np.zeros((len(known.rows()), len(widths))) for _ in range(2))
    size = 0.0
    for i, n in enumerate(widths):
        for k in range(seeds):
            number = seed * seeds + k
            squares[:kernels, i] += known.kernel_errors(n, number)
            moves[:kernels, i] += 1
            with np.errstate(all="ignore"):  # what diverges is told by the errors
                start, found, wanted = _outputs(known, n, number, lr)
                squares[kernels:, i] += np.square(found - wanted).mean(axis=(1, 2))
                moves[kernels:, i] += np.square(wanted - start).mean(axis=(1, 2))
            size += float(np.square(start).mean())
            done(i * seeds + k + 1)
    moved = np.sqrt(moves.sum(axis=1) / size)
    moved[:kernels] = 0
    with np.errstate(all="ignore"):
        return np.sqrt(squares / moves), moved


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


def _rates(net: Network, kind: str) -> Mapping[str, float]:
    """All weights learn in the NTK limit, those after the last hidden layer in the NNGP limit."""
    if kind == "ntk":
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
