"""One folded SGD step of the two-hidden-layer relu π-limit in plain float32 NumPy: the yardstick of the benchmarks.

With unit-norm ĝ and atoms B_m, the relu kernel of a pair is |g| κ(⟨B_m, ĝ⟩) and κ(ρ) = 1/(2π) + ρ/4 + ρ²/(4π) + O(ρ⁴)
(the Mehler series of arc-cosine kernels, Cho & Saul 2009), so old atoms are kept as three tensors per kernel layer,

    T₀ = Σ A_m / 2π,   T₁ = Σ A_m B_mᵀ / 4,   T₂ = Σ A_m ⊗ B_m B_mᵀ / 4π,

and the newest as they are. T₂ is stored whole, without use of its symmetry, and read once per step: T₂ĝ serves the
output and the gradient. The axis it is summed over comes first: BLAS then computes T₂ĝ of small batches fastest, and
what comes out lies sample by sample. Everything else is the exact step of `plain_step.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.reference.plain_step import Array, KernelLayer, PlainMLP


class FoldedLayer(KernelLayer):
    """The window of the newest atoms, fewer than 2·window between steps, and the tensors of all older ones.

    T0 (k,), T1 (k, r), T2 (r, k, r), all multiplied by `scale`. What `forward` keeps for `backward` is the pair
    (q of the window, T₂ĝ of shape (b, k, r)).
    """

    def __init__(self, A: Array, B: Array, bias: Array, window: int) -> None:
        (_, k), (_, r) = A.shape, B.shape
        room = 3 * window  # fewer than two windows between steps, and a batch of at most one
        super().__init__(np.empty((room, k), np.float32), np.empty((room, r), np.float32), bias, 0)
        self.window = window
        self.scale = np.float32(1)
        self.T0, self.T1, self.T2 = (np.zeros(shape, np.float32) for shape in ((k,), (k, r), (r, k, r)))
        for start in range(0, len(A), window):
            self.append(A[start : start + window], B[start : start + window])
            self.fold()

    def forward(self, g: Array) -> tuple[Array, Array, Array, Any]:
        """g (b, r) → output (b, k) without bias, ĝ (b, r), |g| (b, 1), (q, T₂ĝ)."""
        output, unit, norm, q = super().forward(g)
        r, k, _ = self.T2.shape
        S = (unit @ self.T2.reshape(r, k * r)).reshape(len(g), k, r)
        old = self.T0 + unit @ self.T1.T + np.matmul(S, unit[:, :, None])[:, :, 0]
        return output + (self.scale * norm) * old, unit, norm, (q, S)

    def backward(self, delta: Array, unit: Array, kept: Any) -> Array:
        """∂loss/∂g (b, r): with h(ĝ) = T₀ + T₁ĝ + ĝᵀT₂ĝ, ∂(|g| h)/∂g = T₁ + 2 T₂ĝ + ĝ (T₀ − ĝᵀT₂ĝ)."""
        q, S = kept
        into = super().backward(delta, unit, q)
        weights = self.scale * delta
        pulled = np.matmul(weights[:, None, :], S)[:, 0]
        along = (weights @ self.T0)[:, None] - (pulled * unit).sum(axis=1, keepdims=True)
        return into + weights @ self.T1 + 2 * pulled + along * unit

    def fold(self) -> None:
        """Move the oldest atoms into the tensors, one window at a time, until fewer than two windows are left."""
        pi, window = np.pi, self.window
        product = np.empty_like(self.T1)
        while self.atoms >= 2 * window:
            A, B = self.A[:window] / self.scale, self.B[:window]
            self.T0 += A.sum(axis=0) / np.float32(2 * pi)
            self.T1 += A.T @ B / np.float32(4)
            A /= np.float32(4 * pi)
            for T, b in zip(self.T2, B.T):
                T += np.matmul((A * b[:, None]).T, B, out=product)
            self.atoms -= window
            for rows in (self.A, self.B):
                rows[: self.atoms] = rows[window : window + self.atoms].copy()


class PlainFoldedMLP(PlainMLP):
    """`PlainMLP` with every kernel layer folded; `window` atoms fold at a time and no batch may be larger.

    state: the arrays of a depth-2 `PaperMLP`; atoms that do not fit the windows are folded at once.
    """

    hidden: FoldedLayer
    readout: FoldedLayer

    def __init__(
        self,
        state: Mapping[str, ArrayLike],
        window: int = 512,
        input_scale: float = 1.0,
        output_scale: float = 1.0,
        bias_scale: float = 1.0,
    ) -> None:
        few = {name: value if name.startswith("embed") else np.asarray(value)[:0] for name, value in state.items()}
        super().__init__(few, 0, input_scale, output_scale, bias_scale)
        self.hidden, self.readout = (
            FoldedLayer(*(np.array(state[f"{name}.{part}"], np.float32) for part in ("A", "B", "bias")), window)
            for name in ("hidden1", "readout")
        )

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
        """As `PlainMLP.step`; then the tensors decay, by their scale, and full windows are folded."""
        loss = super().step(x, y, lr=lr, lr_mult=lr_mult, weight_decay=weight_decay, clip=clip)
        for layer in (self.hidden, self.readout):
            layer.scale *= np.float32(1 - lr * weight_decay)
            layer.fold()
        return loss

    @property
    def nbytes(self) -> int:
        """Bytes of everything stored."""
        arrays = [self.embed, self.embed_bias]
        for layer in (self.hidden, self.readout):
            arrays += [layer.A, layer.B, layer.bias, layer.T0, layer.T1, layer.T2]
        return sum(a.nbytes for a in arrays)
