"""Initial weights of finite networks: the same seed gives the same network on every backend and in every type."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tpc.derivation import Derivation
from tpc.errors import UsageError, did_you_mean
from tpc.program import ir
from tpc.program.program import Program
from tpc.runtime.models.arguments import check_seed
from tpc.runtime.models.initial import INITS, initial_state
from tpc.runtime.models.room import require_room
from tpc.runtime.networks.finite import FiniteNetwork
from tpc.runtime.networks.matrix import Family, LowRank
from tpc.runtime.networks.network import BASIS, Network

Array = NDArray[Any]
ZERO_READOUT = "zero_readout"
RANDOM_INITS = ("random", ZERO_READOUT)
DRAWN = 1 << 20  # numbers at a time


def finite(
    program: Program | Derivation,
    width: int,
    input_dim: int | None = None,
    *,
    input_shape: Sequence[int] | None = None,
    parametrization: str = "mup",
    rank: int | None = None,
    seed: int = 0,
    dtype: str = "float32",
    backend: str = "numpy",
    init: str | None = None,
) -> Network:
    """An initialized network of width n.

    The shape of a sample is its dimension, `input_dim`, or `input_shape` where it has several axes; neither is needed
    where the program knows their lengths.
    `parametrization` is "mup", "ntk", "standard" (see `tpc.runtime.networks.parametrization`) or "pi": μP with
    gradients projected to the span of Ω ∈ R^(n×rank), and the initial state of a π-limit of that rank. `init` is
    "random" (default) or "zero_readout", for "pi" "zero_readout" (default) or "paper". Raises UsageError for values out
    of range, and for "pi" ProgramError where the program has no π-limit.
    """
    shape = input_dim if input_shape is None else input_shape
    net = Network(program, width, shape, parametrization=parametrization, rank=rank, dtype=dtype, backend=backend)
    initialize(net, seed, init)
    return net


def initialize(net: Network, seed: int, init: str | None = None) -> None:
    """Give a network its initial state. Raises UsageError for an init that its parametrization does not have."""
    check_seed(seed)
    inits = RANDOM_INITS if net.limit is None else INITS
    if init is not None and init not in inits:
        known, hint = ", ".join(inits), did_you_mean(init, inits)
        raise UsageError(f"expected init among {known} with {net.parametrization}, got {init!r}.{hint}")
    numbers = sum(prod(shape) for shape in net.shapes.values())
    drawn = numbers if net.rank is not None else 0
    require_room(f"a network of width {net.width:,}", "width", drawn, numbers, net.dtype, net.backend)
    net.load_state(_random(net, int(seed), init) if net.limit is None else _projected(net, net.limit, int(seed), init))


def _random(net: Network, seed: int, init: str | None) -> dict[str, Array]:
    """Independent Gaussians with the standard deviations of the parametrization."""
    state = {}
    for name, w in net.parameters.items():
        is_readout = isinstance(w, ir.VectorWeight) and w.role == "readout"
        std = 0.0 if is_readout and init == ZERO_READOUT else net.scales[name].std
        state[name] = np.zeros(net.shapes[name], net.dtype)
        if std:
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            for part in _parts(state[name].reshape(-1)):
                part[...] = std * rng.standard_normal(len(part))
    return state


def _parts(flat: Array) -> Iterator[Array]:
    return (flat[i : i + DRAWN] for i in range(0, max(1, len(flat)), DRAWN))


def _projected(net: Network, limit: Derivation, seed: int, init: str | None) -> dict[str, Array]:
    """The network that an initial state of the limit stands for, with bases of the spans of its Ω."""
    assert net.rank is not None
    start = initial_state(limit.graph(), net.sizes, net.rank, seed, init or ZERO_READOUT)
    drawn = FiniteNetwork(limit, start, net.width, seed)
    state: dict[str, Array] = {f"{BASIS}{space}": np.linalg.qr(omega)[0] for space, omega in drawn.omega.items()}
    for name, value in drawn.weights.items():
        w = net.parameters[name]
        if isinstance(w, ir.MatrixWeight):
            members = value.members.values() if isinstance(value, Family) else (value,)
            entries = [_entries(m, net) for m in members]
            state[name] = np.reshape(entries, net.shapes[name])
        else:
            array = np.asarray(value)
            is_readout = isinstance(w, ir.VectorWeight) and w.role == "readout"
            state[name] = array / net.width if is_readout else array
    return state


def _entries(value: Any, net: Network) -> Array:
    """The entries of a matrix that is given by factors."""
    assert isinstance(value, LowRank)
    left, right = value.left.astype(net.dtype), (value.right / net.width).astype(net.dtype)
    entries: Array = left.T @ right
    return entries
