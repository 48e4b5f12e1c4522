"""The folded yardstick takes the steps of a network whose old atoms have the truncated kernel."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference.paper_mlp import Gradients, PaperMLP, batch_loss, initial_state, kernel
from tests.reference.plain_folded import PlainFoldedMLP
from tests.reference.plain_step import PlainMLP

D, R, K, BATCH, STEPS, WINDOW = 12, 7, 3, 5, 12, 6
SCALES = {"input_scale": 1.1, "output_scale": 0.5, "bias_scale": 0.5}
SETTINGS = {"lr": 0.5, "lr_mult": {"embed": 0.1, "readout": 4.0}}
SMALL = 1e-5


def truncated(left, right):
    """|g| |b| κ₂(ρ) for rows g of `left` and b of `right`."""
    norms = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)
    rho = left @ right.T / norms
    return norms * (1 / (2 * np.pi) + rho / 4 + rho**2 / (4 * np.pi))


class TruncatedMLP(PaperMLP):
    """All atoms are kept, in float64; δ is what central differences of the loss say."""

    def __init__(self, state, window):
        super().__init__(state, 2, **SCALES)
        self.window = window
        self.old = {"hidden1": 0, "readout": 0}
        self.age()

    def age(self):
        for name in self.old:
            while len(self._state[f"{name}.B"]) - self.old[name] >= 2 * self.window:
                self.old[name] += self.window

    def apply(self, layer, entering):
        if layer == "embed":
            return super().apply(layer, entering)
        old, B, A = self.old[layer], self._state[f"{layer}.B"], self._state[f"{layer}.A"]
        output = truncated(entering, B[:old]) @ A[:old] + kernel(entering, B[old:]) @ A[old:]
        return self.scale[layer] * (output + self.bias_scale * self._state[f"{layer}.bias"])

    def gradients(self, x, y, loss="cross_entropy"):
        latents, delta, dense, norms, value = {}, {}, {}, {}, np.asarray(x, dtype=np.float64)
        for number, layer in enumerate(self.layers):
            latents[layer] = entering = value
            value = self.apply(layer, entering)
            rest = self.layers[number + 1 :]
            d = delta[layer] = self.scale[layer] * self.differences(rest, value, y)
            dense[f"{layer}.bias"] = self.bias_scale * d.sum(axis=0)
            norms[f"{layer}.bias"] = np.linalg.norm(dense[f"{layer}.bias"])
            if layer == "embed":
                dense["embed.A"] = entering.T @ d
                norms[layer] = np.linalg.norm(dense["embed.A"])
            else:
                norms[layer] = np.sqrt(np.sum((d @ d.T) * kernel(entering, entering)))
        number, _, accuracy = batch_loss(value, y, loss)
        return Gradients(number, accuracy, delta, latents, dense, norms)

    def differences(self, rest, value, y):
        """∂(mean loss)/∂value, all entries of a batch moved one at a time."""
        batch, width = value.shape
        moves = SMALL * np.eye(width)
        losses = [self.losses(rest, value[:, None] + sign * moves, y) for sign in (1, -1)]
        return (losses[0] - losses[1]) / (2 * SMALL * batch)

    def losses(self, rest, values, y):
        """Cross-entropy of values (b, n, width) with the class of their row, (b, n)."""
        outputs = values.reshape(-1, values.shape[2])
        outputs = self.predict_from(rest[0], outputs) if rest else outputs
        labels = np.repeat(y, values.shape[1])
        each = np.log(np.exp(outputs).sum(axis=1)) - outputs[np.arange(len(labels)), labels]
        return each.reshape(values.shape[:2])


def batches(seed=0, size=BATCH):
    rng = np.random.default_rng(seed)
    for _ in range(STEPS):
        yield rng.standard_normal((size, D)).astype(np.float32), rng.integers(K, size=size)


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
def test_old_atoms_have_the_truncated_kernel(clip, weight_decay):
    state = initial_state(D, R, K, depth=2, seed=1)
    reference = TruncatedMLP(state, WINDOW)
    plain = PlainFoldedMLP(state, WINDOW, **SCALES)
    for x, y in batches():
        expected = reference.step(x, y, clip=clip, weight_decay=weight_decay, **SETTINGS)
        reference.age()
        found = plain.step(x, y, clip=clip, weight_decay=weight_decay, **SETTINGS)
        assert found == pytest.approx(expected["loss"], abs=3e-6)
    assert reference.old["hidden1"] >= 8 * WINDOW
    arrays, expected = plain.state(), reference.state()
    for name, value in arrays.items():
        assert value.dtype == np.float32
        assert len(value) < 2 * WINDOW or name.startswith("embed")
        np.testing.assert_allclose(value, expected[name][-len(value) :], atol=2e-5, err_msg=name)


def test_truncation_is_what_folding_changes():
    state = initial_state(D, R, K, depth=2, seed=1)
    plain = PlainFoldedMLP(state, WINDOW, **SCALES)
    truth = PaperMLP(state, 2, **SCALES)
    gaps = [abs(plain.step(x, y, **SETTINGS) - truth.step(x, y, **SETTINGS)["loss"]) for x, y in batches()]
    assert gaps[0] < 1e-6  # nothing is folded yet
    assert 1e-5 < max(gaps) < 0.1


def test_initial_atoms_beyond_the_window_are_folded():
    state = initial_state(D, 4 * WINDOW, K, depth=2, seed=1)
    x, y = next(batches())
    plain = PlainFoldedMLP(state, WINDOW, **SCALES)
    assert plain.hidden.atoms == WINDOW
    assert plain.step(x, y, **SETTINGS) == pytest.approx(
        TruncatedMLP(state, WINDOW).step(x, y, **SETTINGS)["loss"], abs=3e-6
    )


def test_while_all_atoms_are_in_the_window_nothing_differs_from_the_exact_step():
    state = initial_state(D, R, K, depth=2, seed=1)
    exact = PlainMLP(state, BATCH * STEPS, **SCALES)
    folded = PlainFoldedMLP(state, R + BATCH * STEPS, **SCALES)
    for x, y in batches():
        settings = SETTINGS | {"clip": 0.1, "weight_decay": 1e-2}
        assert folded.step(x, y, **settings) == pytest.approx(exact.step(x, y, **settings), rel=1e-6)
    for name, value in exact.state().items():
        np.testing.assert_allclose(folded.state()[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


def test_memory_does_not_grow():
    plain = PlainFoldedMLP(initial_state(D, R, K, depth=2, seed=1), WINDOW)
    before = plain.nbytes
    for x, y in batches():
        plain.step(x, y, lr=0.1)
        assert plain.nbytes == before
        assert plain.hidden.atoms < 2 * WINDOW
