"""Gates with kinks where atoms are the latents that they meet, on every backend with loops of its own."""

import numpy as np
import pytest

from tests.support.repeated import DISTANCES, coinciding, gradients, limit_of


@pytest.mark.parametrize("gate", ["relu", "abs", "squared"])
def test_gradients_at_near_and_away_from_equal_latents(backend, gate):
    tolerance = 1e-4 if gate == "squared" else 5e-6
    for distance in DISTANCES:
        exact, x, y = coinciding(limit_of(gate), distance)
        wanted = gradients(exact, x, y)
        model, *_ = coinciding(limit_of(gate), distance, dtype="float32", backend=backend.NAME)
        model.load_state(exact.state())
        for name, value in gradients(model, x, y).items():
            np.testing.assert_allclose(value, wanted[name], rtol=0, atol=tolerance * np.abs(wanted[name]).max())
