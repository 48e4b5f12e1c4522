"""MAML on the readout of a relu MLP in the π-limit, written from the equations with NumPy alone.

Source: Yang, Santacroce, Hu (ICLR 2022), meta-learning on Omniglot: the readout is zero and takes one step of gradient
descent on the support of a task; the layers before it are trained through that step, second order, by gradient
concatenation. Nothing here uses the compiler.

For a task with support (ξ_s, y_s) of S samples and queries (ξ_q, y_q) of Q, both with latents g before the readout,

    f_q = Σ_s c_s V(g_s, g_q),   c_s = -(ε/S)(p_s - y_s),   p_s = softmax(0) = 1/k,

so the loss (1/Q) Σ_q ℓ(f_q, y_q) reaches the latents of queries and supports through V alone: with χ_q = ∂loss/∂f_q
and w_qs = ⟨χ_q, c_s⟩,  ∂/∂g_q = Σ_s w_qs ∂₁V(g_q, g_s)  and  ∂/∂g_s = Σ_q w_qs ∂₁V(g_s, g_q). Arrays are (samples, …).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tests.reference.paper_mlp import CLIP_EPS, kernel, kernel_gradient

Array = NDArray[np.float64]


@dataclass
class Task:
    """Support and query samples with class numbers."""

    x_support: Array
    y_support: NDArray[np.int64]
    x: Array
    y: NDArray[np.int64]


class PaperMAML:
    """State: `embed.A` (d,r), `embed.bias` (r,), and `hiddenN.A` (M,r), `hiddenN.B` (M,r), `hiddenN.bias` (r,)."""

    def __init__(
        self, state: Mapping[str, ArrayLike], depth: int, classes: int, bias_scale: float, step_size: float
    ) -> None:
        self.state = {name: np.array(value, dtype=np.float64) for name, value in state.items()}
        self.layers = ["embed", *(f"hidden{n}" for n in range(1, depth))]
        self.classes, self.bias_scale, self.step_size = classes, bias_scale, step_size

    def latents(self, x: Array) -> list[Array]:
        """What enters every layer, and last what enters the readout."""
        found = [x]
        for layer in self.layers:
            entering = found[-1]
            features = entering if layer == "embed" else kernel(entering, self.state[f"{layer}.B"])
            found.append(features @ self.state[f"{layer}.A"] + self.bias_scale * self.state[f"{layer}.bias"])
        return found

    def learned(self, y: NDArray[np.int64]) -> Array:
        """The readout's coefficients of the support's atoms after the step, (S, k)."""
        error = 1 / self.classes - np.eye(self.classes)[y]
        return -self.step_size / len(y) * error

    def predict(self, task: Task) -> Array:
        """Logits of the queries, (Q, k)."""
        support, queries = self.latents(task.x_support)[-1], self.latents(task.x)[-1]
        return kernel(queries, support) @ self.learned(task.y_support)

    def gradients(self, task: Task) -> tuple[float, dict[str, tuple[Array, Array]]]:
        """The loss of a task and, for every layer, δ and what entered it, supports after queries."""
        found = [np.concatenate(pair) for pair in zip(self.latents(task.x), self.latents(task.x_support))]
        count = len(task.x)
        queries, support = found[-1][:count], found[-1][count:]
        coefficients = self.learned(task.y_support)
        logits = kernel(queries, support) @ coefficients
        shifted = logits - logits.max(axis=1, keepdims=True)
        log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
        target = np.eye(self.classes)[task.y]
        weights = (np.exp(log_p) - target) / count @ coefficients.T
        into = np.concatenate(
            [kernel_gradient(queries, support, weights), kernel_gradient(support, queries, weights.T)]
        )
        out: dict[str, tuple[Array, Array]] = {}
        for k, layer in reversed(list(enumerate(self.layers))):
            out[layer] = into, found[k]
            if layer != "embed":
                a, b = self.state[f"{layer}.A"], self.state[f"{layer}.B"]
                into = kernel_gradient(found[k], b, into @ a.T)
        return float(-np.sum(target * log_p) / count), out

    def step(self, tasks: Iterable[Task], lr: float, lr_mult: Mapping[str, float], clip: float) -> dict[str, float]:
        """One outer step on the sum of the tasks' losses, its whole gradient clipped to norm `clip`."""
        loss, parts = 0.0, []
        for task in tasks:
            value, gradient = self.gradients(task)
            loss += value
            parts.append(gradient)
        joined = {layer: tuple(np.concatenate(p) for p in zip(*(g[layer] for g in parts))) for layer in self.layers}
        square = 0.0
        dense = {}
        for layer, (delta, entering) in joined.items():
            dense[f"{layer}.bias"] = self.bias_scale * delta.sum(axis=0)
            if layer == "embed":
                dense["embed.A"] = entering.T @ delta
            else:
                square += float(np.sum(delta @ delta.T * kernel(entering, entering)))
        norm = float(np.sqrt(square + sum(np.sum(g**2) for g in dense.values())))
        rate = lr * min(1.0, clip / (norm + CLIP_EPS))
        for name, gradient in dense.items():
            self.state[name] = self.state[name] - rate * lr_mult.get(name.removesuffix(".A"), 1.0) * gradient
        for layer in self.layers[1:]:
            delta, entering = joined[layer]
            size = np.linalg.norm(entering, axis=1, keepdims=True)
            rows = -rate * lr_mult.get(layer, 1.0) * delta * size
            self.state[f"{layer}.A"] = np.concatenate([self.state[f"{layer}.A"], rows])
            self.state[f"{layer}.B"] = np.concatenate([self.state[f"{layer}.B"], entering / size])
        return {"loss": loss, "norm": norm}
