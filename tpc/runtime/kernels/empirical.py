"""Kernels of one random network of finite width, from the gradients of its own program.

They converge to the kernel limits: the error falls like n^(-1/2) (Yang, Tensor Programs II).
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from typing import cast

import numpy as np
from numpy.typing import ArrayLike

from tpc.derivation import Derivation
from tpc.errors import InternalError, UsageError
from tpc.limits.kinds import ALL
from tpc.passes.per_sample import gradients, single_output
from tpc.passes.project import PREFIX, outers
from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, without
from tpc.program.program import AnyWeight, Program
from tpc.runtime.networks.interpret import Value, evaluate
from tpc.runtime.networks.lazy_gaussian import lazy_gaussian
from tpc.runtime.networks.matrix import F64, Dense, LowRank, MatrixValue


def empirical_kernels(limit: Derivation, x: ArrayLike, width: int, seed: int = 0, lazy: bool = False) -> dict[str, F64]:
    """The kernels (N, N) that a limit has, of a random network at x (N, features) in NTK parametrization.

    "ntk" is the inner product of the output's gradients with respect to N(0, 1) arrays; "nngp" is the covariance of
    the output given the hidden layers, over readouts and their biases. A `lazy` network draws of its matrices what it
    applies: another one for the same seed, of the same distribution, in time that grows like its width.
    """
    if width < 1:
        raise UsageError(f"expected a width ≥ 1, got {width}")
    rows = np.asarray(x, dtype=np.float64)
    program = gradients(single_output(limit.program))
    leaves: dict[str, Value] = {"x": rows}
    for w in program.weights:
        rng = np.random.default_rng([seed, width, zlib.crc32(w.name.encode())])
        leaves[w.name] = _sampled(w, rows, width, rng, lazy)
    used = [w for w in program.weights if _learns(w, limit.entry.learning)]
    names = [f"{PREFIX}{w.name}" for w in used if f"{PREFIX}{w.name}" in program]
    values = evaluate(program, names, width, leaves, {})
    shares = list(_shares(program, values, len(rows), width, rows.shape[1]))
    return {
        name: np.sum([share for w, share in shares if _learns(w, which)], axis=0)
        for name, which in limit.entry.kernels.items()
    }


def _learns(w: AnyWeight, which: str) -> bool:
    """Whether a weight is among those that a kernel is of."""
    return which == ALL or _is_last(w)


def _is_last(w: AnyWeight) -> bool:
    """Whether no hidden layer comes after it."""
    return isinstance(w, tensor.Weight) or _is_readout(w)


def _is_readout(w: AnyWeight) -> bool:
    return isinstance(w, ir.VectorWeight) and w.role == "readout"


def _sampled(w: AnyWeight, x: F64, width: int, rng: np.random.Generator, lazy: bool) -> Value:
    """N(0, σ²/fan-in) entries, the same for every sample; a readout as the program has it, n times as large."""
    std = float(w.std)
    if isinstance(w, ir.MatrixWeight) and lazy:
        return lazy_gaussian(width, std / math.sqrt(width), rng)
    if isinstance(w, ir.MatrixWeight):
        return Dense(std / math.sqrt(width) * rng.standard_normal((width, width)), np.matmul)
    if isinstance(w, tensor.Weight):
        return np.full(len(x), std * rng.standard_normal())
    own = without(w.shape, (SAMPLE,))
    lengths = [x.shape[1]] * len(own)
    scale = std * math.sqrt(width) if _is_readout(w) else std / math.sqrt(math.prod(lengths))
    entries = scale * rng.standard_normal((*lengths, width))
    shape = [len(x) if a == SAMPLE else x.shape[1] for a in w.shape]
    return np.broadcast_to(np.expand_dims(entries, w.shape.index(SAMPLE)), (*shape, width))


def _shares(
    program: Program, values: dict[str, Value], count: int, width: int, features: int
) -> Iterator[tuple[AnyWeight, F64]]:
    """What every weight adds to the tangent kernel."""
    for w in program.weights:
        value = values.get(f"{PREFIX}{w.name}")
        if value is None:
            continue
        variance = float(w.std) ** 2
        if isinstance(w, ir.MatrixWeight):
            grad = cast(ir.Matrix, program[f"{PREFIX}{w.name}"])
            left, right = _per_sample(grad, cast(MatrixValue, value), count, features)
            products = np.einsum("iak,jbk->iajb", left, left) * np.einsum("iak,jbk->iajb", right, right)
            yield w, variance / width**3 * products.sum(axis=(1, 3))
            continue
        axes = cast(tensor.Tensor | ir.Vector, program[f"{PREFIX}{w.name}"]).axes
        array = np.moveaxis(cast(F64, value), axes.index(SAMPLE), 0).reshape(count, -1)
        if isinstance(w, ir.VectorWeight):
            variance /= width if w.role == "readout" else width**2 * features ** len(without(w.shape, (SAMPLE,)))
        yield w, variance * array @ array.T


def _per_sample(grad: ir.Matrix, value: MatrixValue, count: int, features: int) -> tuple[F64, F64]:
    """The factors of a gradient matrix, (sample, place where the matrix is applied, width)."""
    if not isinstance(value, LowRank):
        raise InternalError("the gradient of a matrix is a sum of outer products")
    parts: list[list[F64]] = [[], []]
    start = 0
    for o in outers(grad):
        lengths = [count if a == SAMPLE else a.size or features for a in o.over]
        stop = start + math.prod(lengths)
        for found, factor in zip(parts, (value.left, value.right)):
            rows = factor[start:stop].reshape(*lengths, -1)
            found.append(np.moveaxis(rows, o.over.index(SAMPLE), 0).reshape(count, -1, rows.shape[-1]))
        start = stop
    left, right = (np.concatenate(found, axis=1) for found in parts)
    return left, right
