"""The float32 yardstick takes the same steps as the reference."""

from __future__ import annotations

import numpy as np
import pytest

from tests.reference.paper_mlp import PaperMLP, initial_state
from tests.reference.plain_step import PlainMLP

D, R, K, BATCH, STEPS = 12, 7, 3, 5, 12
SCALES = {"input_scale": 1.1, "output_scale": 0.5, "bias_scale": 0.5}


@pytest.mark.parametrize("clip", [None, 0.1])
@pytest.mark.parametrize("weight_decay", [0.0, 1e-3])
def test_trajectory_equals_the_reference(clip, weight_decay):
    rng = np.random.default_rng(0)
    state = initial_state(D, R, K, depth=2, seed=1)
    reference = PaperMLP(state, 2, **SCALES)
    plain = PlainMLP(state, spare=BATCH * STEPS, **SCALES)
    for _ in range(STEPS):
        x, y = rng.standard_normal((BATCH, D)), rng.integers(K, size=BATCH)
        settings = {"lr": 0.5, "lr_mult": {"embed": 0.1, "readout": 4.0}, "weight_decay": weight_decay}
        expected = reference.step(x, y, clip=clip, **settings)
        assert plain.step(x.astype(np.float32), y, clip=clip, **settings) == pytest.approx(expected["loss"], abs=2e-6)
    found = plain.state()
    for name, value in reference.state().items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], value, atol=5e-6, err_msg=name)


def test_an_append_stays_in_the_allocated_rows():
    state = initial_state(D, R, K, depth=2, seed=1)
    plain = PlainMLP(state, spare=BATCH)
    before = plain.hidden.A
    x = np.random.default_rng(0).standard_normal((BATCH, D)).astype(np.float32)
    plain.step(x, np.zeros(BATCH, dtype=np.intp), lr=0.1)
    assert plain.hidden.A is before
    assert plain.hidden.atoms == len(before) == R + BATCH
