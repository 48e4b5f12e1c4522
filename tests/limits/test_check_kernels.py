"""The convergence check of kernel limits: networks follow the kernel as they train, and not a wrong one."""

import numpy as np
import pytest

import tpc
from tpc.errors import UsageError
from tpc.report.plots import convergence
from tpc.tasks import kernel_check
from tpc.tasks.check import run_check
from tpc.tasks.kernel_check import Beside

QUICK = {"widths": (64, 128, 256, 512, 1024), "seeds": 6, "steps": 2}


def network(x):
    h = tpc.dense(x, name="embed", weight_std=1.4) + tpc.bias("embed", 0.3)
    h = h + tpc.dense(tpc.erf(h), name="block", weight_std=1.2) + tpc.bias("block", 0.2)
    return 0.5 * (tpc.readout(tpc.erf(h), 5) + tpc.bias("readout", 0.4))


@pytest.mark.parametrize(("limit", "loss"), [("ntk", "cross_entropy"), ("ntk", "mse"), ("nngp", "cross_entropy")])
def test_networks_approach_the_kernel_and_train_along_it(limit, loss):
    result = run_check(tpc.trace(network), limit=limit, loss=loss, **QUICK)
    assert result.ok, result.table()
    assert result.rank is None
    assert result.moved[0] == 0
    assert min(result.moved[1:]) > 0.1
    assert "step 0: kernels" in result.table()
    assert len(convergence(result).axes) == 1


def test_a_wrong_kernel_is_found(monkeypatch):
    right = kernel_check.beside

    def wrong(*arguments):
        known = right(*arguments)
        return Beside(known.limit, known.x, known.y, known.ends, known.loss, 1.3 * known.kernel)

    monkeypatch.setattr(kernel_check, "beside", wrong)
    result = run_check(tpc.trace(network), limit="ntk", **{**QUICK, "steps": 1})
    assert not result.ok
    assert min(s.slope for s in result.slopes) > -0.3


def test_slopes_are_those_of_the_losses():
    rng = np.random.default_rng(0)
    f, y = rng.standard_normal((4, 3)), rng.integers(0, 3, 4)

    def value(f, loss):
        if loss == "mse":
            return np.mean((f - np.eye(3)[y]) ** 2)
        return np.mean(np.log(np.exp(f).sum(axis=1)) - f[np.arange(4), y])

    for loss in ("cross_entropy", "mse"):
        found = kernel_check.slope(f, y, loss)
        for index in np.ndindex(f.shape):
            step = np.zeros_like(f)
            step[index] = 1e-6
            expected = (value(f + step, loss) - value(f - step, loss)) / 2e-6
            assert found[index] == pytest.approx(expected, abs=1e-8)


def test_options_that_a_kernel_does_not_have_are_told():
    with pytest.raises(UsageError, match="plain gradient descent, without momentum"):
        run_check(tpc.trace(network), limit="ntk", momentum=0.5, **QUICK)
