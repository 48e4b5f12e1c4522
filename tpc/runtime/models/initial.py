"""Initial states of a π-limit (Yang, Santacroce, Hu 2022, §4): the same seed gives the same state on every backend."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from tpc.errors import UsageError, did_you_mean
from tpc.limits.graph import LimitGraph
from tpc.limits.store import Accumulate, Store
from tpc.program.axes import Axes, Axis

F64 = NDArray[np.float64]

INITS = ("zero_readout", "paper")


def initial_state(graph: LimitGraph, sizes: Mapping[str, int], rank: int, seed: int, init: str) -> dict[str, F64]:
    """Arrays by state name.

    Input-like weights have Gaussian columns of unit norm times std, biases N(0, std²). Every kernel matrix starts with
    M = rank atoms at Gaussian latents of unit norm, coefficients N(0, std²/M) for hidden matrices. Readouts start at
    zero, or with init="paper" at std/M times a Gaussian, as in the published runs.
    """
    if init not in INITS:
        raise UsageError(f"expected init among {', '.join(INITS)}, got {init!r}.{did_you_mean(init, INITS)}")
    state: dict[str, F64] = {}
    for u in graph.accumulated:
        state[u.state.name] = _accumulated(u, sizes, rank, seed)
    for s in graph.stores:
        state.update(_stored(s, sizes, rank, seed, init))
    return state


def shape_of(axes: Axes, sizes: Mapping[str, int], rank: int) -> tuple[int, ...]:
    """Lengths of finite and rank axes."""
    return tuple(_length(a, sizes, rank) for a in axes)


def _length(axis: Axis, sizes: Mapping[str, int], rank: int) -> int:
    if axis.role == "rank":
        return rank
    return axis.size if axis.size is not None else sizes[axis.base]


def _rng(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _accumulated(u: Accumulate, sizes: Mapping[str, int], rank: int, seed: int) -> F64:
    shape = shape_of(u.state.axes, sizes, rank)
    std = float(u.std)
    if std == 0:
        return np.zeros(shape)
    draw = _rng(seed, u.state.name).standard_normal(shape)
    is_input = len(shape) > 1 and u.state.axes[-1].role == "rank"
    if is_input:
        draw /= np.sqrt(np.square(draw).sum(axis=tuple(range(len(shape) - 1)), keepdims=True))
    return std * draw


def _stored(s: Store, sizes: Mapping[str, int], rank: int, seed: int, init: str) -> dict[str, F64]:
    atoms = rank if s.name == s.weight and not s.thetas else 0  # further forms of a weight's atoms start empty
    state: dict[str, F64] = {}
    for column in s.columns:
        b = _rng(seed, column.name).standard_normal((atoms, *shape_of(column.axes[1:], sizes, rank)))
        state[column.name] = b / np.linalg.norm(b, axis=-1, keepdims=True)
    width = shape_of(s.coefficients.axes[1:], sizes, rank)
    draw = _rng(seed, s.coefficients.name).standard_normal((atoms, *width))
    if s.readout:
        factor = 0.0 if init == "zero_readout" else float(s.scale) / max(1, atoms)
    else:
        factor = float(s.scale) / np.sqrt(max(1, atoms))
    state[s.coefficients.name] = factor * draw
    for t in s.thetas:
        state[t.name] = np.ones(0)
    return state
