"""The convergence check of kernel limits: networks follow the kernel as they train, and not a wrong one."""

import math
from dataclasses import replace

import numpy as np
import pytest

import tpc
from tests.support.checked import falls
from tpc.errors import ProgramError, UsageError
from tpc.report.plots import convergence
from tpc.tasks import kernel_check
from tpc.tasks.check import run_check

QUICK = {"widths": (64, 128, 256, 512), "seeds": 8, "steps": 2, "fit_steps": 12}


def network(x):
    h = tpc.dense(x, name="embed", weight_std=1.4) + tpc.bias("embed", 0.3)
    h = h + tpc.dense(tpc.erf(h), name="block", weight_std=1.2) + tpc.bias("block", 0.2)
    return 0.5 * (tpc.readout(tpc.erf(h), 5) + tpc.bias("readout", 0.4))


@pytest.mark.parametrize(("limit", "loss"), [("ntk", "cross_entropy"), ("ntk", "mse"), ("nngp", "cross_entropy")])
def test_networks_approach_the_kernel_and_train_along_it(limit, loss):
    result = run_check(tpc.trace(network), limit=limit, loss=loss, **QUICK)
    assert result.verdict.answer != "wrong", result.table()
    assert falls(result.slopes)
    assert result.rank is None
    kernels = ["NNGP kernel", "NTK kernel"][: 1 + (limit == "ntk")]
    assert list(result.rows) == [*kernels, "step 1", "step 2", "fit"]
    assert result.moved[: len(kernels)] == (None,) * len(kernels)
    assert min(result.moved[len(kernels) :]) > 0.1
    assert "fit: 12 steps on the squared loss of 16 samples" in result.table()
    assert len(convergence(result, result).axes) == 2


@pytest.mark.parametrize("name", ["mlp", "resmlp"])
def test_the_programs_approach_their_kernels(name, programs_dir):
    result = run_check(tpc.load(programs_dir / f"{name}.py"), limit="ntk", **QUICK)
    assert result.verdict.answer != "wrong", result.table()
    assert falls(result.slopes)


def check_with(monkeypatch, change, limit="ntk", **options):
    right = kernel_check.beside
    monkeypatch.setattr(kernel_check, "beside", lambda *arguments: change(right(*arguments)))
    return {s.row: s for s in run_check(tpc.trace(network), limit=limit, **{**QUICK, **options}).slopes}


def test_a_wrong_kernel_is_found_in_every_row_that_it_is_in(monkeypatch):
    def wrong(known):
        return replace(known, kernels={**known.kernels, "ntk": 1.3 * known.kernels["ntk"]})

    slopes = check_with(monkeypatch, wrong, steps=1, fit_steps=2, lr=4.0)
    assert falls([slopes["NNGP kernel"]])
    assert min(slopes[row].slope for row in ("NTK kernel", "step 1")) > -0.3


def test_a_kernel_that_is_not_the_trained_one_is_found_in_the_fit(monkeypatch):
    def wrong(known):
        return replace(known, kernels={**known.kernels, "ntk": known.kernels["nngp"]})

    assert check_with(monkeypatch, wrong, steps=0)["fit"].interval()[0] > -0.3


def test_kernels_of_a_network_with_jumps_are_compared_before_training():
    def jumps(x):
        return tpc.readout(tpc.step(tpc.dense(x, name="embed") + tpc.bias("embed", 0.3)), 5)

    result = run_check(tpc.trace(jumps), limit="nngp", **{**QUICK, "steps": 0, "fit_steps": 0})
    assert result.verdict.answer != "wrong", result.table()
    assert falls(result.slopes)
    assert result.rows == ("NNGP kernel",)


def test_a_long_fit_is_ridgeless_regression():
    limit = tpc.compile(tpc.trace(network), limit="ntk")
    rng = np.random.default_rng(0)
    x, y, start = rng.standard_normal((12, 4)), np.eye(5)[rng.integers(0, 5, 12)], rng.standard_normal((12, 5))
    known = kernel_check.beside(limit, x, y, 5, 1, 8, "mse", 1)
    kernel = limit.kernel(x)["ntk"]
    regression = start[8:] + kernel[8:, :8] @ np.linalg.solve(kernel[:8, :8], y[:8] - start[:8])
    assert known.fitted(start, math.inf) == pytest.approx(regression)
    assert known.fitted(start, 1e6) == pytest.approx(regression)
    once = known.trajectory(start, known.fit_rate)[1]
    assert known.fitted(start, 1) == pytest.approx(once)


def test_slopes_are_those_of_the_losses():
    rng = np.random.default_rng(0)
    f, y = rng.standard_normal((4, 3)), rng.integers(0, 3, 4)

    def value(f, loss):
        if loss == "mse":
            return np.mean((f - np.eye(3)[y]) ** 2)
        return np.mean(np.log(np.exp(f).sum(axis=1)) - f[np.arange(4), y])

    for loss in ("cross_entropy", "mse"):
        found = kernel_check.slope(f, np.eye(3)[y], loss)
        for index in np.ndindex(f.shape):
            step = np.zeros_like(f)
            step[index] = 1e-6
            expected = (value(f + step, loss) - value(f - step, loss)) / 2e-6
            assert found[index] == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize(
    ("limit", "options", "message"),
    [
        ("ntk", {"momentum": 0.5}, "plain gradient descent, without momentum"),
        ("nngp", {"rank": 8}, "plain gradient descent, without rank"),
        ("ntk", {"loss": "mse", "lr": 1e150}, r"training of the networks diverged at learning rate 1e\+150"),
        ("ntk", {"fit_steps": -1}, "expected fit_steps to be a whole number from 0 on, got -1"),
        ("pi", {}, "fit_steps are taken beside kernel limits"),
    ],
)
def test_wrong_arguments_are_told(limit, options, message):
    with pytest.raises(UsageError, match=message):
        run_check(tpc.trace(network), limit=limit, **{**QUICK, "seeds": 1, **options})


def test_a_network_that_adapts_has_no_kernel(programs_dir):
    with pytest.raises(ProgramError, match="kernel limits are those of a network before adaptation"):
        run_check(tpc.load(programs_dir / "maml.py"), limit="ntk", **QUICK)
