"""Finite networks beside a kernel limit: their kernels at initialization, and their outputs as they train.

In the kernel limits training is gradient descent on functions: a step on a batch B with ∂L/∂f = χ moves every output by
−η K(·, B) χ (Jacot et al. 2018). K is the NTK where all weights are trained, and the NNGP kernel where readouts and
their biases are (Lee et al. 2019, §2). A network in NTK parametrization follows from its own random start up to
O(n^(-1/2)).
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

F64 = NDArray[np.float64]
Array = NDArray[Any]
COMPARED = 16  # samples at which kernels are compared
RATES = tuple(2.0**-k for k in range(-8, 40))


@dataclass(frozen=True)
class Beside:
    """The kernel of a limit at the samples x (N, d) with classes y (N,), which training goes along.

    `ends` are the bounds of its batches; samples from the last of them on are held out, and compared.
    """

    limit: Limit
    x: F64
    y: Array
    ends: Sequence[int]
    loss: str
    kernel: F64

    def trajectory(self, start: F64, lr: float) -> F64:
        """Outputs of held-out samples before the first and after every step, from outputs `start` (N, classes)."""
        f = start.copy()
        found = [f[self.ends[-1] :].copy()]
        for a, b in pairwise(self.ends):
            f -= lr * self.kernel[:, a:b] @ slope(f[a:b], self.y[a:b], self.loss)
            found.append(f[self.ends[-1] :].copy())
        return np.stack(found)

    def trained(self, net: Network, lr: float) -> F64:
        """The same of a network that is trained."""
        rates = _rates(net, self.limit.kind)
        held_out = self.x[self.ends[-1] :]
        found = [net.predict(held_out)]
        for a, b in pairwise(self.ends):
            net.step(self.x[a:b], self.y[a:b], lr=lr, lr_mult=rates, loss=self.loss)
            found.append(net.predict(held_out))
        return np.stack(found)

    def kernel_error(self, width: int, seed: int) -> float:
        """The mean square that the kernel of a random network differs by, relative to that of the limit."""
        last = slice(-COMPARED, None)
        found = empirical_kernels(self.limit, self.x[last], width, seed)[self.limit.kind]
        wanted = self.kernel[last, last]
        return float(np.square(found - wanted).mean() / np.square(wanted).mean())

    def moderate_rate(self, classes: int) -> float:
        """The largest of the rates tried at which outputs that start at zero reach at most half a random one's size."""
        prior = Limit(self.limit.program, "nngp").kernel_diagonal(self.x[self.ends[-1] :])["nngp"]
        size = float(np.sqrt(prior.mean()))
        start = np.zeros((len(self.x), classes))
        return next(rate for rate in RATES if np.sqrt(np.square(self.trajectory(start, rate)).mean()) <= size / 2)


def beside(limit: Limit, x: F64, y: Array, ends: Sequence[int], loss: str) -> Beside:
    """The kernel limit at the samples of a check."""
    return Beside(limit, x, y, ends, loss, limit.kernel(x)[limit.kind])


def compare(
    known: Beside, widths: Sequence[int], seeds: int, seed: int, lr: float, done: Callable[[int], None]
) -> tuple[F64, F64]:
    """Errors (steps + 1, widths) and how far outputs have moved (steps + 1,), relative to their size at random.

    Errors are root mean squares over seeds, samples and classes: of the kernel relative to the limit's before training,
    of the outputs relative to how far the limit has moved them after it.
    """
    steps = len(known.ends) - 1
    squares, moves, sizes = (np.zeros((steps + 1, len(widths))) for _ in range(3))
    for i, n in enumerate(widths):
        for k in range(seeds):
            number = seed * seeds + k
            net = finite(
                known.limit.program, n, known.x.shape[1], parametrization="ntk", seed=number, dtype="float64"
            )  # fmt: skip
            wanted = known.trajectory(net.predict(known.x), lr)
            squares[0, i] += known.kernel_error(n, number) / seeds
            squares[1:, i] += np.square(known.trained(net, lr) - wanted).mean(axis=(1, 2))[1:]
            moves[:, i] += np.square(wanted - wanted[0]).mean(axis=(1, 2))
            sizes[:, i] += np.square(wanted[0]).mean()
            done(i * seeds + k + 1)
    squares[1:] /= moves[1:]
    return np.sqrt(squares), np.sqrt(moves.sum(axis=1) / sizes.sum(axis=1))


def _rates(net: Network, kind: str) -> Mapping[str, float]:
    """All weights learn in the NTK limit, those after the last hidden layer in the NNGP limit."""
    if kind == "ntk":
        return {}
    return {name: float(role(w) in ("readout", "finite")) for name, w in net.parameters.items()}


def slope(f: F64, y: Array, loss: str) -> F64:
    """∂L/∂f of the mean loss over the samples of a batch, for outputs f (N, classes) and classes y (N,)."""
    target = np.eye(f.shape[1])[y]
    if loss == "mse":
        return np.asarray(2 * (f - target) / f.size)
    p = np.exp(f - f.max(axis=1, keepdims=True))
    return np.asarray((p / p.sum(axis=1, keepdims=True) - target) / len(f))


def refuse(options: Mapping[str, object], fold: object) -> None:
    """Raise UsageError for options that a kernel limit does not have."""
    given = [name for name, value in options.items() if value] + (["fold"] if fold is not None else [])
    if given:
        raise UsageError(f"kernel limits are checked under plain gradient descent, without {given[0]}")
