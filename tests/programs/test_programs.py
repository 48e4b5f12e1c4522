"""Every program that comes with tpc compiles and learns the embedded digits."""

from pathlib import Path

import numpy as np
import pytest

import tpc
from tpc import data
from tpc.passes.adapt import is_adapted
from tpc.runtime.models.support import Support

FOLDER = Path(__file__).parents[2] / "programs"
PROGRAMS = sorted(p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_"))
IMAGES = ["cnn"]  # trained on images
ADAPTING = [name for name in PROGRAMS if is_adapted(tpc.load(FOLDER / f"{name}.py"))]
CLASSIFIERS = [name for name in PROGRAMS if name not in (*ADAPTING, *IMAGES)]
COUNT, RANK, BATCH, STEPS = 256, 32, 32, 80


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


def batches(digits, steps, seed=0):
    rng = np.random.default_rng(seed)
    for _ in range(steps):
        rows = rng.choice(COUNT, BATCH, replace=False)
        yield digits.train_x[rows], digits.train_y[rows]


def mean_loss(model, digits, loss):
    logits = model.predict(digits.test_x[:COUNT]).astype(np.float64)
    labels = digits.test_y[:COUNT]
    if loss == "mse":
        return np.mean((logits - np.eye(model.classes)[labels]) ** 2)
    logits -= logits.max(axis=1, keepdims=True)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -log_p[np.arange(len(labels)), labels].mean()


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_listing_is_stable(name):
    first, second = (tpc.load(FOLDER / f"{name}.py") for _ in range(2))
    text = tpc.listing(first)
    assert text == tpc.listing(second)
    assert tpc.parse(text) == first
    assert text.startswith(f"program {name}\n")


@pytest.mark.parametrize("name", IMAGES)
def test_training_on_images_of_digits(name, digits):
    limit = tpc.compile(tpc.load(FOLDER / f"{name}.py", layers=2))
    fold = tpc.FoldOptions(degree=2, window=0)
    model = limit.build(input_shape=(8, 8, 1), rank=16, mode="folded", fold=fold, seed=1)
    options = {"lr": 0.5, "lr_mult": {"readout": 4.0}, "clip": 1.0}
    seen = [model.step(x[::2].reshape(-1, 8, 8, 1), y[::2], **options)["loss"] for x, y in batches(digits, 40)]
    assert np.mean(seen[-6:]) < 0.8 * np.mean(seen[:4])


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_training_on_digits(name, loss, digits):
    model = tpc.compile(tpc.load(FOLDER / f"{name}.py")).build(digits.train_x.shape[1], RANK, seed=1)
    before = mean_loss(model, digits, loss)
    rate, mult = (0.5, 10.0) if loss == "cross_entropy" else (1.0, 4.0)
    options = {"lr": rate, "lr_mult": {"readout": mult}, "clip": 1.0, "loss": loss}
    seen = [model.step(x, y, **options)["loss"] for x, y in batches(digits, STEPS)]
    assert np.mean(seen[-8:]) < 0.8 * np.mean(seen[:2])
    assert mean_loss(model, digits, loss) < 0.8 * before
    accuracy = np.mean(model.predict(digits.test_x).argmax(axis=1) == digits.test_y)
    assert accuracy > 0.6
    assert set(model.atoms.values()) == {RANK + STEPS * BATCH}


WAYS, TASKS = 5, 8


def few_shot(digits, steps, first=0, seed=0):
    """Tasks of five digits from `first` on, one support and two queries of each."""
    rng = np.random.default_rng(seed)
    rows = [np.flatnonzero(digits.train_y == c) for c in range(first, first + WAYS)]
    own, asked = np.repeat(np.arange(TASKS), WAYS), np.repeat(np.arange(TASKS), 2 * WAYS)
    labels = np.tile(np.arange(WAYS), TASKS)
    for _ in range(steps):
        drawn = np.array([[rng.choice(r, 3, replace=False) for r in rows] for _ in range(TASKS)])
        support = digits.train_x[drawn[:, :, 0].ravel()]
        queries = digits.train_x[drawn[:, :, 1:].ravel()]
        yield queries, np.repeat(labels, 2), Support(support, labels, own, asked)


@pytest.mark.parametrize("name", ADAPTING)
def test_few_shot_training_on_digits(name, digits):
    model = tpc.compile(tpc.load(FOLDER / f"{name}.py")).build(digits.train_x.shape[1], RANK, seed=1)
    options = {"lr": 4.0, "clip": 0.1, "clip_mode": "global"}
    seen = [model.step(x, y, support=s, **options)["loss"] / TASKS for x, y, s in few_shot(digits, 60)]
    assert np.mean(seen[-8:]) < 0.8 * np.mean(seen[:2])
    right = [model.predict(x, s).argmax(axis=1) == y for x, y, s in few_shot(digits, 20, seed=1)]
    assert np.mean(right) > 0.7
    assert set(model.atoms.values()) == {RANK + 60 * TASKS * WAYS * 3}


@pytest.mark.parametrize("name", [n for n in PROGRAMS if n not in IMAGES])
def test_the_same_seed_gives_the_same_model(name, digits):
    adapts = name in ADAPTING

    def trained(seed):
        model = tpc.compile(tpc.load(FOLDER / f"{name}.py")).build(digits.train_x.shape[1], RANK, seed=seed)
        if not adapts:
            for x, y in batches(digits, 3):
                model.step(x, y, lr=0.5)
            return model.predict(digits.test_x[:20])
        for x, y, support in few_shot(digits, 3):
            model.step(x, y, lr=0.5, support=support)
        return model.predict(x, support)

    np.testing.assert_array_equal(trained(1), trained(1))
    assert not np.array_equal(trained(1), trained(2))
