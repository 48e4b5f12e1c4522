"""Training trajectories of the derived MLP against an implementation written from the paper's equations."""

import numpy as np
import pytest

import tpc
from tests.reference.paper_mlp import PaperMLP, initial_state
from tests.support.problems import plain

DIM, RANK, CLASSES, COUNT, STEPS = 12, 7, 3, 5, 12
SCALES = {"input_scale": 1.1, "output_scale": 0.5, "bias_scale": 0.7}
RATES = {"embed": 0.1, "readout": 4.0, "hidden1.bias": 0.5}

SETTINGS = {
    "plain": {},
    "multipliers": {"lr_mult": RATES},
    "decay": {"weight_decay": 0.05, "lr_mult": RATES},
    "decay that follows": {"weight_decay": 0.05, "lr_mult": RATES, "decay_follows_lr_mult": True},
    "clip by parameter": {"clip": 0.2, "clip_mode": "param", "lr_mult": RATES, "weight_decay": 0.01},
    "clip of all": {"clip": 0.4, "clip_mode": "global", "lr_mult": RATES, "weight_decay": 0.01},
    "momentum": {"momentum": 0.9, "lr_mult": RATES},
    "everything": {
        "momentum": 0.8,
        "clip": 0.3,
        "clip_mode": "global",
        "weight_decay": 0.05,
        "decay_follows_lr_mult": True,
        "lr_mult": RATES,
    },
    "mean squares": {"loss": "mse", "lr_mult": RATES, "clip": 0.3, "momentum": 0.5},
}


def both(programs_dir, depth, dtype="float64"):
    state = initial_state(DIM, RANK, CLASSES, depth, seed=1)
    reference = PaperMLP(state, depth, **SCALES)
    program = tpc.load(programs_dir / "mlp.py", hidden=depth, classes=CLASSES, **SCALES)
    model = tpc.compile(program).build(DIM, RANK, dtype=dtype)
    model.load_state(state)
    return model, reference


def batches(steps=STEPS):
    rng = np.random.default_rng(0)
    for _ in range(steps):
        yield rng.standard_normal((COUNT, DIM)), rng.integers(CLASSES, size=COUNT)


@pytest.mark.parametrize("depth", [2, 3])
@pytest.mark.parametrize("setting", SETTINGS)
def test_twelve_steps_equal_the_paper(programs_dir, setting, depth):
    model, reference = both(programs_dir, depth)
    options = {"lr": 0.5, **SETTINGS[setting]}
    for x, y in batches():
        found, expected = model.step(x, y, **options), reference.step(x, y, **options)
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-12, abs=1e-12)
        assert found["accuracy"] == expected["accuracy"]
    probe = np.random.default_rng(1).standard_normal((9, DIM))
    np.testing.assert_allclose(model.predict(probe), reference.predict(probe), rtol=0, atol=1e-12)
    state, wanted = plain(model.state()), reference.state()
    assert state.keys() == wanted.keys()
    for name, value in wanted.items():
        np.testing.assert_allclose(state[name], value, rtol=0, atol=1e-12, err_msg=name)
    assert len(state["readout.A"]) == RANK + STEPS * COUNT


def test_settings_lead_to_different_trajectories(programs_dir):
    """What the comparison above distinguishes."""
    probe = np.random.default_rng(1).standard_normal((9, DIM))
    ends = []
    for options in SETTINGS.values():
        _, reference = both(programs_dir, 2)
        for x, y in batches():
            reference.step(x, y, lr=0.5, **options)
        ends.append(reference.predict(probe))
    for i, a in enumerate(ends):
        for b in ends[:i]:
            assert np.abs(a - b).max() > 1e-4


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_settings_may_change_between_steps(programs_dir, momentum):
    model, reference = both(programs_dir, 2)
    for k, (x, y) in enumerate(batches()):
        options = {"lr": 0.5 / (k + 1), "weight_decay": 0.02 * k, "momentum": momentum, "clip": 0.5 if k % 2 else None}
        model.step(x, y, **options)
        reference.step(x, y, **options)
    for name, value in reference.state().items():
        np.testing.assert_allclose(model.state()[name], value, rtol=0, atol=1e-12, err_msg=name)


def test_clip_norms_are_the_papers(programs_dir):
    model, reference = both(programs_dir, 3)
    for x, y in batches(3):
        norms = reference.gradients(x, y).norms
        assert model.step(x, y, lr=0.5, clip=1.0)["grad_norm"] == pytest.approx(norms, rel=1e-10)
        reference.step(x, y, lr=0.5, clip=1.0)


def test_single_precision_follows(programs_dir):
    model, reference = both(programs_dir, 2, dtype="float32")
    options = {"lr": 0.5, **SETTINGS["clip by parameter"]}
    for x, y in batches():
        model.step(x, y, **options)
        reference.step(x, y, **options)
    for name, value in reference.state().items():
        np.testing.assert_allclose(model.state()[name], value, rtol=0, atol=1e-5, err_msg=name)
