"""The π-limit of a relu MLP, written from the equations with NumPy alone.

Source: Yang, Santacroce, Hu, *Efficient Computation of Deep Nonlinear Infinite-Width Neural Networks
that Learn Features* (ICLR 2022). Nothing here uses the compiler: the forward pass, the backward pass and
the update are spelled out, in float64, so that a derived limit can be held against them.

    g₁ = input_scale · (Aᵀξ + bias_scale · β₁)
    gₗ₊₁ = Σ_m A_m V(B_m, gₗ) + bias_scale · βₗ₊₁
    f = output_scale · (Σ_m A_m V(B_m, g_depth) + bias_scale · β)

with V(b, g) = E relu(⟨z,b⟩) relu(⟨z,g⟩), z standard Gaussian. Arrays are (batch, features).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

CLIP_EPS = 1e-6  # a gradient is multiplied by min(1, clip / (norm + CLIP_EPS))


def angles(left: Array, right: Array) -> Array:
    """Angle between every row of `left` (b, r) and every row of `right` (M, r), shape (b, M).

    2·atan2(|u − v|, |u + v|) for unit u, v: accurate where arccos is not, near 0 and π. A zero row is at π/2
    from everything.
    """
    u, v = _unit(left)[:, None, :], _unit(right)[None, :, :]
    return 2 * np.arctan2(np.linalg.norm(u - v, axis=2), np.linalg.norm(u + v, axis=2))


def kernel(left: Array, right: Array) -> Array:
    """V_φφ: E relu(⟨z,g⟩) relu(⟨z,b⟩) for rows g of `left` and b of `right`, shape (b, M)."""
    theta = angles(left, right)
    unit = (np.sin(theta) + (np.pi - theta) * np.cos(theta)) / (2 * np.pi)
    return _norms(left)[:, None] * _norms(right) * unit


def kernel_gradient(left: Array, right: Array, weights: Array) -> Array:
    """Σ_m weights_im ∂V(g_i, b_m)/∂g_i, shape (b, r); by Stein's lemma ∂V/∂g = V_φ'φ' b + V_φφ'' g."""
    theta = angles(left, right)
    first = weights * (np.pi - theta) / (2 * np.pi)
    norms = _norms(left)
    inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    second = (weights * np.sin(theta) * _norms(right)).sum(axis=1) / (2 * np.pi) * inverse
    gradient = first @ right + second[:, None] * left
    return np.where(norms[:, None] > 0, gradient, 0.0)


@dataclass
class Gradients:
    """What one batch asks of every parameter, before clipping.

    delta: layer → ∂loss/∂(that layer's output before program multipliers), (b, r) or (b, k)
    latents: layer → the latent that entered it, (b, d) for `embed`
    dense: `embed.A` and every bias → its gradient
    norms: parameter name → function-space norm
    """

    loss: float
    accuracy: float
    delta: dict[str, Array]
    latents: dict[str, Array]
    dense: dict[str, Array]
    norms: dict[str, float]


class PaperMLP:
    """An MLP of `depth` hidden layers in the π-limit, trained by SGD.

    state: `embed.A` (d,r), `embed.bias` (r,), `hiddenN.A` (M,r), `hiddenN.B` (M,r), `hiddenN.bias` (r,) for
    N = 1 … depth−1, `readout.A` (M,k), `readout.B` (M,r), `readout.bias` (k,). A missing bias stays absent.
    """

    def __init__(
        self,
        state: Mapping[str, ArrayLike],
        depth: int,
        input_scale: float = 1.0,
        output_scale: float = 1.0,
        bias_scale: float = 1.0,
    ) -> None:
        self.layers = ["embed", *(f"hidden{n}" for n in range(1, depth)), "readout"]
        expected = {"embed.A"} | {f"{layer}.{part}" for layer in self.layers[1:] for part in "AB"}
        biases = {f"{layer}.bias" for layer in self.layers}
        if not expected <= set(state) <= expected | biases:
            raise ValueError(f"depth {depth} needs {sorted(expected)}, got {sorted(state)}")
        self._state = {name: np.array(value, dtype=np.float64) for name, value in state.items()}
        self._velocity = {name: 0 * value for name, value in self._state.items() if not name.endswith(".B")}
        self.scale = dict.fromkeys(self.layers, 1.0) | {"embed": input_scale, "readout": output_scale}
        self.bias_scale = bias_scale

    def state(self) -> dict[str, Array]:
        """A copy of every array."""
        return {name: value.copy() for name, value in self._state.items()}

    def apply(self, layer: str, entering: Array) -> Array:
        """The output of one layer, program multipliers included."""
        coefficients = self._state[f"{layer}.A"]
        features = entering if layer == "embed" else kernel(entering, self._state[f"{layer}.B"])
        output = features @ coefficients
        if f"{layer}.bias" in self._state:
            output = output + self.bias_scale * self._state[f"{layer}.bias"]
        return self.scale[layer] * output

    def predict_from(self, layer: str, entering: Array) -> Array:
        """The network's output (b, k) when `entering` (b, r) enters `layer`."""
        for name in self.layers[self.layers.index(layer) :]:
            entering = self.apply(name, entering)
        return entering

    def predict(self, x: ArrayLike) -> Array:
        """(N, d) → (N, k)."""
        return self.predict_from("embed", np.asarray(x, dtype=np.float64))

    def gradients(self, x: ArrayLike, y: ArrayLike, loss: str = "cross_entropy") -> Gradients:
        """Backward pass: δ of every layer, dense gradients and function-space norms."""
        latents: dict[str, Array] = {}
        value = np.asarray(x, dtype=np.float64)
        for layer in self.layers:
            latents[layer] = value
            value = self.apply(layer, value)
        number, into, accuracy = batch_loss(value, y, loss)

        delta: dict[str, Array] = {}
        dense: dict[str, Array] = {}
        norms: dict[str, float] = {}
        for layer in reversed(self.layers):
            entering = latents[layer]
            d = delta[layer] = self.scale[layer] * into
            if f"{layer}.bias" in self._state:
                dense[f"{layer}.bias"] = self.bias_scale * d.sum(axis=0)
                norms[f"{layer}.bias"] = float(np.linalg.norm(dense[f"{layer}.bias"]))
            if layer == "embed":
                dense["embed.A"] = entering.T @ d
                norms["embed"] = float(np.linalg.norm(dense["embed.A"]))
            else:
                norms[layer] = float(np.sqrt(max(0.0, np.sum((d @ d.T) * kernel(entering, entering)))))
                atoms, coefficients = self._state[f"{layer}.B"], self._state[f"{layer}.A"]
                into = kernel_gradient(entering, atoms, d @ coefficients.T)
        return Gradients(number, accuracy, delta, latents, dense, norms)

    def step(
        self,
        x: ArrayLike,
        y: ArrayLike,
        *,
        lr: float,
        lr_mult: Mapping[str, float] | None = None,
        weight_decay: float = 0.0,
        decay_follows_lr_mult: bool = False,
        clip: float | None = None,
        clip_mode: str = "param",
        momentum: float = 0.0,
        loss: str = "cross_entropy",
    ) -> dict[str, float]:
        """One step: clip ∇, m ← μ m + ∇, W ← (1 − lr·λ) W − lr·mult·m. Returns the metrics before it.

        A kernel layer's ∇ is one row per sample, (δ_i |g_i|, g_i/|g_i|), appended to (A, B). Its momentum has
        a row for every atom: the old rows shrink by μ, the new rows are the gradient.
        """
        found = self.gradients(x, y, loss)
        factor = clip_factors(found.norms, clip, clip_mode)
        mult = dict.fromkeys(found.norms, 1.0) | dict(lr_mult or {})
        if unknown := set(mult) - set(found.norms):
            raise ValueError(f"lr_mult names {sorted(unknown)}, expected {sorted(found.norms)}")

        for parameter, shrink in factor.items():
            rate = lr * mult[parameter]
            decay = 1 - weight_decay * (rate if decay_follows_lr_mult else lr)
            name = parameter if parameter.endswith(".bias") else f"{parameter}.A"
            if name in found.dense:
                velocity = momentum * self._velocity[name] + shrink * found.dense[name]
                value = self._state[name]
            else:
                entering = found.latents[parameter]
                rows = shrink * found.delta[parameter] * _norms(entering)[:, None]
                velocity = np.concatenate([momentum * self._velocity[name], rows])
                value = np.concatenate([self._state[name], np.zeros_like(rows)])
                atoms = np.concatenate([self._state[f"{parameter}.B"], _unit(entering)])
                self._state[f"{parameter}.B"] = atoms
            self._velocity[name] = velocity
            self._state[name] = decay * value - rate * velocity
        return {"loss": found.loss, "accuracy": found.accuracy}


def clip_factors(norms: Mapping[str, float], clip: float | None, mode: str) -> dict[str, float]:
    """Parameter → what its gradient is multiplied by; `mode` is "param" or "global", no clip is 0."""
    if mode not in ("param", "global"):
        raise ValueError(f'clip_mode is "param" or "global", got {mode!r}')
    if not clip:
        return dict.fromkeys(norms, 1.0)
    total = float(np.sqrt(sum(norm**2 for norm in norms.values())))
    measured = norms if mode == "param" else dict.fromkeys(norms, total)
    return {name: min(1.0, clip / (norm + CLIP_EPS)) for name, norm in measured.items()}


def batch_loss(outputs: Array, y: ArrayLike, loss: str) -> tuple[float, Array, float]:
    """Loss, ∂loss/∂outputs (b, k) and accuracy of a batch.

    `y` holds class numbers (b,) or one row per sample (b, k). "cross_entropy" is the mean over the batch,
    "mse" the mean over the batch and the outputs.
    """
    labels = np.asarray(y)
    batch, classes = outputs.shape
    target = np.eye(classes)[labels] if labels.ndim == 1 else labels.astype(np.float64)
    accuracy = float(np.mean(outputs.argmax(axis=1) == target.argmax(axis=1)))
    if loss == "mse":
        difference = outputs - target
        return float(np.mean(difference**2)), 2 * difference / difference.size, accuracy
    if loss != "cross_entropy":
        raise ValueError(f'loss is "cross_entropy" or "mse", got {loss!r}')
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    weight = target.sum(axis=1, keepdims=True)
    return float(-np.sum(target * log_p) / batch), (weight * np.exp(log_p) - target) / batch, accuracy


def initial_state(d: int, r: int, k: int, depth: int, seed: int, readout: str = "gaussian") -> dict[str, Array]:
    """The paper's initialization: r unit-norm Gaussian atoms per layer, unit embed columns, zero biases.

    Hidden coefficients are N(0, 1/r); readout coefficients N(0, 1/r²), or zero with readout="zero".
    """
    rng = np.random.default_rng(seed)
    embed = rng.standard_normal((d, r))
    state = {"embed.A": embed / np.linalg.norm(embed, axis=0), "embed.bias": np.zeros(r)}
    for n in range(1, depth):
        state[f"hidden{n}.A"] = rng.standard_normal((r, r)) / np.sqrt(r)
        state[f"hidden{n}.B"] = _unit(rng.standard_normal((r, r)))
        state[f"hidden{n}.bias"] = np.zeros(r)
    state["readout.A"] = rng.standard_normal((r, k)) / r if readout == "gaussian" else np.zeros((r, k))
    state["readout.B"] = _unit(rng.standard_normal((r, r)))
    state["readout.bias"] = np.zeros(k)
    return state


def _norms(rows: Array) -> Array:
    return np.asarray(np.linalg.norm(rows, axis=1))


def _unit(rows: Array) -> Array:
    norms = _norms(rows)[:, None]
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)
