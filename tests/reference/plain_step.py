"""One SGD step of the two-hidden-layer relu π-limit in plain float32 NumPy: the yardstick of the benchmarks.

The equations of `paper_mlp.py` as one would first write them for speed: one dense (batch × atoms) matrix
per kernel layer, matrix products for everything else, q kept from the forward to the backward pass, arccos
for the relu kernels. Rows for new atoms are allocated beforehand, so a step copies nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float32]


@dataclass
class KernelLayer:
    """A (capacity, k) and unit-norm B (capacity, r), the first `atoms` rows in use; bias (k,)."""

    A: Array
    B: Array
    bias: Array
    atoms: int

    def forward(self, g: Array) -> tuple[Array, Array, Array, Array]:
        """g (b, r) → output (b, k) without bias, ĝ (b, r), |g| (b, 1), q = ĝBᵀ (b, M)."""
        norm = np.linalg.norm(g, axis=1, keepdims=True)
        unit = g / norm
        q = unit @ self.B[: self.atoms].T
        np.clip(q, -1, 1, out=q)
        v = (np.sqrt(1 - q * q) + np.arccos(-q) * q) * (norm / np.float32(2 * np.pi))
        return v @ self.A[: self.atoms], unit, norm, q

    def backward(self, delta: Array, unit: Array, q: Array) -> Array:
        """∂loss/∂g (b, r) from delta = ∂loss/∂output (b, k)."""
        c = delta @ self.A[: self.atoms].T / np.float32(2 * np.pi)
        along = (c * np.sqrt(1 - q * q)).sum(axis=1, keepdims=True)
        return (c * np.arccos(-q)) @ self.B[: self.atoms] + along * unit

    def gradient_norm(self, delta: Array, unit: Array, norm: Array) -> float:
        """sqrt Σ_ij ⟨δ_i, δ_j⟩ V(g_i, g_j)."""
        q = np.clip(unit @ unit.T, -1, 1)
        v = (np.sqrt(1 - q * q) + np.arccos(-q) * q) * (norm * norm.T / (2 * np.pi))
        return float(np.sqrt(max(0.0, np.sum((delta @ delta.T) * v))))

    def append(self, A: Array, B: Array) -> None:
        """Write b new rows behind the atoms in use."""
        self.A[self.atoms : self.atoms + len(A)] = A
        self.B[self.atoms : self.atoms + len(A)] = B
        self.atoms += len(A)


class PlainMLP:
    """f = output_scale (readout(hidden1(embed(x)))), every layer with a bias times bias_scale.

    state: the arrays of a depth-2 `PaperMLP`; `spare` rows are left free for new atoms.
    """

    def __init__(
        self,
        state: Mapping[str, ArrayLike],
        spare: int,
        input_scale: float = 1.0,
        output_scale: float = 1.0,
        bias_scale: float = 1.0,
    ) -> None:
        self.embed = np.array(state["embed.A"], dtype=np.float32)
        self.embed_bias = np.array(state["embed.bias"], dtype=np.float32)
        self.hidden = _layer(state, "hidden1", spare)
        self.readout = _layer(state, "readout", spare)
        self.input_scale = np.float32(input_scale)
        self.output_scale = np.float32(output_scale)
        self.bias_scale = np.float32(bias_scale)

    def step(
        self,
        x: Array,
        y: NDArray[np.intp],
        *,
        lr: float,
        lr_mult: Mapping[str, float] | None = None,
        weight_decay: float = 0.0,
        clip: float | None = None,
    ) -> float:
        """One step on x (b, d), class numbers y (b,): mean cross-entropy, clipping per parameter.

        Weight decay multiplies what is stored by 1 − lr·λ. Returns the loss before the step.
        """
        hidden, readout, bias_scale = self.hidden, self.readout, self.bias_scale
        g1 = self.input_scale * (x @ self.embed + bias_scale * self.embed_bias)
        g2, unit1, norm1, q1 = hidden.forward(g1)
        g2 += bias_scale * hidden.bias
        f, unit2, norm2, q2 = readout.forward(g2)
        f = self.output_scale * (f + bias_scale * readout.bias)

        f -= f.max(axis=1, keepdims=True)
        p = np.exp(f)
        total = p.sum(axis=1, keepdims=True)
        rows = np.arange(len(x))
        loss = float(np.mean(np.log(total[:, 0]) - f[rows, y]))
        p /= total
        p[rows, y] -= 1
        delta_f = p * (self.output_scale / len(x))

        delta2 = readout.backward(delta_f, unit2, q2)
        delta1 = self.input_scale * hidden.backward(delta2, unit1, q1)

        gradient = {"embed": x.T @ delta1, "hidden1": delta2, "readout": delta_f}
        for name, delta in (("embed", delta1), ("hidden1", delta2), ("readout", delta_f)):
            gradient[f"{name}.bias"] = bias_scale * delta.sum(axis=0)
        if clip:
            norms = {name: float(np.linalg.norm(g)) for name, g in gradient.items()}
            norms["hidden1"] = hidden.gradient_norm(delta2, unit1, norm1)
            norms["readout"] = readout.gradient_norm(delta_f, unit2, norm2)
            for name, norm in norms.items():
                gradient[name] = gradient[name] * np.float32(min(1.0, clip / (norm + 1e-6)))
        mult = lr_mult or {}
        update = {name: np.float32(-lr * mult.get(name, 1.0)) * g for name, g in gradient.items()}

        if weight_decay:
            keep = np.float32(1 - lr * weight_decay)
            for stored in (self.embed, self.embed_bias, hidden.bias, readout.bias):
                stored *= keep
            hidden.A[: hidden.atoms] *= keep
            readout.A[: readout.atoms] *= keep
        self.embed += update["embed"]
        self.embed_bias += update["embed.bias"]
        hidden.bias += update["hidden1.bias"]
        readout.bias += update["readout.bias"]
        hidden.append(update["hidden1"] * norm1, unit1)
        readout.append(update["readout"] * norm2, unit2)
        return loss

    def state(self) -> dict[str, Array]:
        """The arrays in use, named as in `PaperMLP`."""
        arrays = {"embed.A": self.embed, "embed.bias": self.embed_bias}
        for name, layer in (("hidden1", self.hidden), ("readout", self.readout)):
            arrays[f"{name}.A"] = layer.A[: layer.atoms]
            arrays[f"{name}.B"] = layer.B[: layer.atoms]
            arrays[f"{name}.bias"] = layer.bias
        return arrays


def _layer(state: Mapping[str, ArrayLike], name: str, spare: int) -> KernelLayer:
    A, B = (np.asarray(state[f"{name}.{part}"], dtype=np.float32) for part in "AB")
    room_A, room_B = (np.empty((len(A) + spare, part.shape[1]), dtype=np.float32) for part in (A, B))
    room_A[: len(A)], room_B[: len(B)] = A, B
    return KernelLayer(room_A, room_B, np.array(state[f"{name}.bias"], dtype=np.float32), len(A))
