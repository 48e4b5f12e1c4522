"""The random network and the random batches that every side of a comparison works on. Needs NumPy alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]
Labels = NDArray[np.int64]

INPUTS, CLASSES = 3072, 10
SCALES = {"input_scale": 1.0, "output_scale": 0.5, "bias_scale": 0.5}
SETTINGS = {"lr": 0.1, "lr_mult": {"embed": 0.1, "readout": 4.0}, "weight_decay": 1e-5, "clip": 0.4}
PIECE = 4096  # atoms drawn at a time


def batches(size: int, seed: int = 1) -> Callable[[], tuple[Array, Labels]]:
    """A source of new batches: inputs (size, INPUTS) and class numbers (size,)."""
    rng = np.random.default_rng([seed, size])
    return lambda: (rng.standard_normal((size, INPUTS), dtype=np.float32), rng.integers(0, CLASSES, size))


def dense(rank: int, seed: int = 0) -> dict[str, Array]:
    """The embedding and the biases of programs/mlp.py."""
    rng = np.random.default_rng(seed)
    embed = rng.standard_normal((INPUTS, rank), dtype=np.float32)
    biases = {name: rng.standard_normal(rank, dtype=np.float32) for name in ("embed.bias", "hidden1.bias")}
    readout = rng.standard_normal(CLASSES, dtype=np.float32)
    return {"embed.A": embed / np.linalg.norm(embed, axis=0), **biases, "readout.bias": readout}


def atoms(layer: str, count: int, rank: int, seed: int = 0) -> Iterator[dict[str, Array]]:
    """`count` atoms of a kernel layer, piece by piece: unit-norm B (n, rank), coefficients A (n, rank or CLASSES)."""
    width = CLASSES if layer == "readout" else rank
    rng = np.random.default_rng([seed, width])
    for start in range(0, count, PIECE):
        n = min(PIECE, count - start)
        b = rng.standard_normal((n, rank), dtype=np.float32)
        b /= np.linalg.norm(b, axis=1, keepdims=True)
        yield {"A": rng.standard_normal((n, width), dtype=np.float32) / np.float32(count) ** 0.5, "B": b}


def state(count: int, rank: int, seed: int = 0) -> dict[str, Array]:
    """The whole network with `count` atoms in both kernel layers, arrays named as in `Model.state`."""
    found = dense(rank, seed)
    for layer in ("hidden1", "readout"):
        pieces = list(atoms(layer, count, rank, seed))
        for part in ("A", "B"):
            found[f"{layer}.{part}"] = np.concatenate([piece[part] for piece in pieces])
    return found
