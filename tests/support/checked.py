"""Networks whose limits are right, and limits made wrong in ways that an error of the compiler could."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import tpc
from tests.support.sabotage import Change, gradient_of, kernel_scaled, sums_of_updates, term_dropped, times
from tests.support.sabotage import without_multiplier as forgotten
from tpc.program.program import Program
from tpc.tasks.convergence import CheckResult, Even
from tpc.tasks.intervals import fit_slope
from tpc.tasks.verdict import BAND

PROGRAMS = Path(__file__).parents[2] / "programs"


def perceptron(phi: Callable[[Any], Any], depth: int = 2) -> Program:
    """Hidden layers with biases."""

    def network(x):
        h = tpc.dense(x, name="embed") + 0.5 * tpc.bias("embed")
        for layer in range(1, depth):
            h = tpc.dense(phi(h), name=f"hidden{layer}") + 0.5 * tpc.bias(f"hidden{layer}")
        return tpc.readout(phi(h), 5) + 0.5 * tpc.bias("readout")

    return tpc.trace(network)


def pre_norm(x):
    h = tpc.dense(x, name="embed")
    for block in range(2):
        h = h + tpc.dense(tpc.relu(tpc.rms_norm(h)), name=f"block{block}")
    return tpc.readout(tpc.rms_norm(h), 5)


def gated(gate: Callable[[Any], Any]) -> Program:
    """A gated linear unit between an embedding and a readout."""

    def network(x):
        h = tpc.relu(tpc.dense(x, name="embed"))
        g, u = (tpc.dense(h, name=name, space="gated") for name in ("gate", "up"))
        return tpc.readout(gate(g) * u, 5)

    return tpc.trace(network)


def shared_weights(x):
    h = tpc.dense(x, name="embed", space="stream")
    for _ in range(2):
        h = h + 0.5 * tpc.dense(tpc.relu(h), name="block", space="stream")
    return tpc.readout(tpc.relu(h), 5)


def tied_readouts(x):
    h = tpc.relu(tpc.dense(x, name="embed", space="stream"))
    deeper = tpc.relu(tpc.dense(h, name="block", space="stream"))
    return tpc.readout(h, 5, name="out") + tpc.readout(deeper, 5, name="out")


RIGHT: dict[str, Callable[[], Program]] = {
    "mlp": lambda: tpc.load(PROGRAMS / "mlp.py"),
    "resmlp": lambda: tpc.load(PROGRAMS / "resmlp.py"),
    "maml": lambda: tpc.load(PROGRAMS / "maml.py"),
    "pre-norm": lambda: tpc.trace(pre_norm),
    "GLU": lambda: gated(tpc.sigmoid),
    "SwiGLU": lambda: gated(tpc.silu),
    "gelu": lambda: perceptron(tpc.gelu),
    "erf": lambda: perceptron(tpc.erf),
    "sin": lambda: perceptron(tpc.sin),
    "leaky relu, 3 layers": lambda: perceptron(lambda h: tpc.leaky_relu(h, 0.2), 3),
    "relu, 6 layers": lambda: perceptron(tpc.relu, 6),
    "shared weights": lambda: tpc.trace(shared_weights),
    "tied readouts": lambda: tpc.trace(tied_readouts),
}


@dataclass(frozen=True)
class Wrong:
    """A limit that is wrong: of which program, by which change of its graph."""

    program: str
    change: Change


def first_term_dropped(weight: str) -> Change:
    """Without the first term of the last sum that a weight's gradient is computed from."""

    def change(graph):
        def used(place):
            found = term_dropped(graph, place, 0)
            return dict(found.updates)[weight] != dict(graph.updates)[weight]

        return term_dropped(graph, max(filter(used, range(len(sums_of_updates(graph))))), 0)

    return change


def falls(slopes) -> bool:
    """Whether every interval reaches into the band around −1/2, and none to 0."""
    return all(s.interval()[0] < BAND[1] and BAND[0] < s.interval()[1] < 0 for s in slopes)


def result_of(widths, rows, errors, *, limit="pi", deviations=(), moved=None, fit=None, name="net") -> CheckResult:
    """A check with these errors (rows, widths), the same for both of its seeds."""
    slopes = tuple(fit_slope(row, widths, np.array([e, e]).T) for row, e in zip(rows, errors))
    rank = 8 if limit == "pi" else None
    moved = moved or (0.0,) * len(rows)
    even = Even(8, 4096, "evenly drawn")
    return CheckResult(name, limit, rank, 2, 0.5, widths, rows, errors, slopes, deviations, moved, even, fit=fit)


WRONG = {
    "forward kernel 2 % too large": Wrong("mlp", kernel_scaled(0)),
    "backward kernel 2 % too large": Wrong("mlp", kernel_scaled(2)),
    "kernel of a gate 2 % too large": Wrong("GLU", kernel_scaled(1)),
    "a term of an update dropped": Wrong("mlp", first_term_dropped("embed")),
    "a term of an adapted network's update dropped": Wrong("maml", first_term_dropped("hidden1")),
    "a bias that learns backwards": Wrong("resmlp", gradient_of("block1.bias", times(-1))),
    "a bias without its multiplier": Wrong("mlp", gradient_of("hidden1.bias", forgotten)),
    "a hidden matrix that learns 3 % too fast": Wrong("mlp", gradient_of("hidden1", times(1.03))),
}
