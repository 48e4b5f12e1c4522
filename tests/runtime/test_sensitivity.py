"""Where number types end apart: unstable training, not an error. What an input's last digit changes is the measure."""

import numpy as np
import pytest

import tpc

STEPS, BATCH = 70, 8


@pytest.fixture(scope="module")
def trained(programs_dir):
    """Logits of one program after every step, with inputs of a million and a rate at which training is unstable."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((200, 10)) * 1e6, rng.integers(0, 10, 200)
    test, noise = rng.standard_normal((50, 10)) * 1e6, rng.standard_normal(x.shape)
    limit = tpc.compile(tpc.load(programs_dir / "mlp.py"))

    def run(dtype="float32", backend="numpy", storage=None, moved=0.0):
        model = limit.build(input_dim=10, rank=9, dtype=dtype, backend=backend, storage=storage)
        found = []
        for k in range(STEPS):
            rows = np.arange(k * BATCH, (k + 1) * BATCH) % len(x)
            model.step((x * (1 + moved * noise))[rows], y[rows], lr=1e-9)
            found.append(model.predict(test).astype(np.float64))
        return found

    exact = run("float64")

    def distance(**options):
        return np.array([np.abs(a - b).max() / np.abs(b).max() for a, b in zip(run(**options), exact)])

    return distance


def test_single_precision_goes_as_far_as_inputs_moved_by_its_rounding(trained):
    moved = trained(dtype="float64", moved=1e-7)
    assert moved[:5].max() < 1e-6
    assert moved[-5:].max() > 0.1
    for backend in ("numpy", "native"):
        single = trained(backend=backend)
        assert single[:5].max() < 2e-6
        ratio = np.maximum.accumulate(single) / np.maximum.accumulate(moved)
        assert ratio.max() < 50
    assert trained(dtype="float64", moved=1e-12)[-5:].max() > 1e8 * 1e-12


def test_coefficients_in_float16_cost_its_rounding_and_no_more(trained):
    """Most coefficients of this training are below 6e-8, the least number of float16."""
    for backend in ("numpy", "native"):
        assert trained(storage="float16", backend=backend)[:11].max() < 2e-3
