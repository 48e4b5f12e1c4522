"""One notion of targets for every entry point: class numbers, rows, real values; anything else is told."""

import numpy as np
import pytest

import tpc
from tpc.errors import ProgramError, UsageError
from tpc.runtime.kernels.kernel_adaptation import KernelAdaptation
from tpc.runtime.kernels.regression import KernelRegression
from tpc.runtime.models.targets import read_targets
from tpc.runtime.networks.finite import FiniteNetwork
from tpc.runtime.training.evaluation import ValueEvaluation, evaluate
from tpc.tasks.check import run_check

N, DIM = 6, 4
X = np.random.default_rng(0).standard_normal((N, DIM))
SIGNS = np.array([-1, 1, 1, -1, 1, -1])
REAL = np.array([0.3, -1.2, 2.0, 0.7, -0.4, 1.1])
PROBABILITIES = np.full((N, 3), 1 / 3)


def network(outputs):
    def net(x):
        return tpc.readout(tpc.gelu(tpc.dense(x, "embed")), outputs)

    return tpc.trace(net)


def model(outputs):
    return tpc.compile(network(outputs)).build(DIM, 3, dtype="float64", init="paper")


def finite_of_limit(outputs):
    limit = tpc.compile(network(outputs))
    return FiniteNetwork(limit, limit.build(DIM, 3, init="paper").state(), 16)


def adapted(y, outputs, loss):
    """The support's targets of an adapted network."""
    program = tpc.trace(lambda x: tpc.adapt(tpc.readout(tpc.gelu(tpc.dense(x, "e")), outputs), loss="mse"), name="a")
    net = tpc.compile(program).build(DIM, 3)
    net.predict(X, tpc.Support(X, y))


def kernel(a, b=None, out=None):
    b = a if b is None else b
    made = np.exp(-((a[:, None] - b[None]) ** 2).sum(-1))
    if out is not None:
        out[...] = made
    return made


ENTRIES = {
    "Model.step": lambda y, k, loss: model(k).step(X, y, lr=0.1, loss=loss),
    "Network.step": lambda y, k, loss: tpc.finite(network(k), 8, DIM).step(X, y, lr=0.1, loss=loss),
    "FiniteNetwork.step": lambda y, k, loss: finite_of_limit(k).step(X, y, lr=0.1, loss=loss),
    "evaluate": lambda y, k, loss: evaluate(model(k), X, y, loss),
    "run_check": lambda y, k, loss: run_check(
        network(k), x=X, y=y, loss=loss, steps=2, batch=2, widths=(16, 32, 64), seeds=1, rank=3
    ),
    "run_check, kernels": lambda y, k, loss: run_check(
        network(k), limit="ntk", x=X, y=y, loss=loss, steps=2, batch=2, widths=(16, 32, 64), seeds=1, fit_steps=0
    ),
}
WITHOUT_LOSS = {
    "KernelRegression": lambda y, k: KernelRegression(kernel, X, y, k, dtype="float64"),
    "KernelAdaptation": lambda y, k: KernelAdaptation(kernel, k).predict(X, tpc.Support(X, y)),
    "Support": lambda y, k: adapted(y, k, "mse"),
}
WRONG = {
    r"from 0 to 1, got -1 to 1; −1 and \+1 become class numbers by \(y \+ 1\) // 2": (SIGNS, 2),
    r"from 0 to 2, got 1 to 3; numbers that start at 1 become class numbers by y - 1": (np.array([1, 2, 3] * 2), 3),
    r"from 0 to 2, got 0 to 7, and there are 3 outputs": (np.array([0, 1, 7] * 2), 3),
    r"class numbers are integers: y\.astype\(int\)": (np.array([0.0, 1.0, 2.0] * 2), 3),
    r"real values need a network with one output, or one column for each output": (REAL, 3),
    r"got float64 of shape \(6, 2\)": (np.zeros((N, 2)), 3),
    r"a column of class numbers becomes a row of them by y\.ravel\(\)": (np.array([[0], [1], [2]] * 2), 3),
    r"hold real numbers, got bool; truth values become class numbers by y\.astype\(int\)": (SIGNS > 0, 2),
    r"got <U3; number the classes first": (np.array(["cat", "dog"] * 3), 2),
    r"got object; number the classes first": (np.array([0, None, 1] * 2, dtype=object), 2),
    r"to be an array \(": ([[0, 1], [1, 0], [1], [0, 1], [1, 0], [0, 1]], 2),
    r"got complex128": (REAL + 1j, 2),
    r"finite .*targets|finite y": (np.where(np.arange(18).reshape(N, 3) == 4, np.nan, 0.2), 3),
}


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("message", WRONG)
@pytest.mark.parametrize("loss", ["mse", "cross_entropy"])
def test_wrong_targets_are_told_everywhere(entry, message, loss):
    y, outputs = WRONG[message]
    with pytest.raises(UsageError, match=message):
        ENTRIES[entry](y, outputs, loss)


@pytest.mark.parametrize("entry", WITHOUT_LOSS)
@pytest.mark.parametrize("message", WRONG)
def test_wrong_targets_of_kernels_and_supports_are_told(entry, message):
    y, outputs = WRONG[message]
    with pytest.raises(UsageError, match=message):
        WITHOUT_LOSS[entry](y, outputs)


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("y", [np.zeros(N, int), REAL, REAL[:, None]])
def test_the_cross_entropy_of_one_output_is_refused(entry, y):
    with pytest.raises(UsageError, match=r"cross entropy of one output is 0 whatever it is.*loss 'mse'"):
        ENTRIES[entry](y, 1, "cross_entropy")


@pytest.mark.parametrize("entry", ENTRIES)
@pytest.mark.parametrize("change", [-1.5, 0.5])
def test_the_cross_entropy_takes_probabilities(entry, change):
    wrong = PROBABILITIES.copy()
    wrong[4, 1] += change
    with pytest.raises(UsageError, match=r"probabilities, numbers ≥ 0 that sum to 1 in every row, got \[.*\] in row 4"):
        ENTRIES[entry](wrong, 3, "cross_entropy")


@pytest.mark.parametrize("entry", ENTRIES)
def test_right_targets_are_taken_everywhere(entry):
    for y, outputs, loss in (
        (np.arange(N) % 3, 3, "cross_entropy"),
        (np.arange(N, dtype=np.uint8) % 3, 3, "mse"),
        (PROBABILITIES, 3, "cross_entropy"),
        (PROBABILITIES.astype(np.float16), 3, "cross_entropy"),
        (np.stack([REAL, -REAL], axis=1), 2, "mse"),
        (REAL, 1, "mse"),
        (REAL[:, None], 1, "mse"),
        (SIGNS, 1, "mse"),
        (list(SIGNS), 1, "mse"),
    ):
        ENTRIES[entry](y, outputs, loss)


@pytest.mark.parametrize("made", [model, lambda k: tpc.finite(network(k), 16, DIM, dtype="float64")])
def test_real_values_have_r_squared_and_no_accuracy(made):
    net = made(1)
    f = net.predict(X)[:, 0]
    wanted = 1 - np.square(f - REAL).sum() / np.square(REAL - REAL.mean()).sum()
    found = net.step(X, REAL, lr=0.0, loss="mse")
    assert found.keys() == {"loss", "r2"}
    assert found["r2"] == pytest.approx(wanted)
    assert found["loss"] == pytest.approx(np.square(f - REAL).mean())
    again = evaluate(net, X, REAL, "mse")
    assert isinstance(again, ValueEvaluation)
    assert again.to_dict() == pytest.approx(found)
    with pytest.raises(UsageError, match="real-valued targets have no accuracy"):
        _ = again.accuracy
    assert net.step(X, np.ones(N), lr=0.0, loss="mse")["r2"] is None  # which do not vary
    two = made(2)
    y = np.stack([REAL, 3 - REAL], axis=1)
    f = two.predict(X)
    wanted = 1 - np.square(f - y).sum() / np.square(y - y.mean(axis=0)).sum()
    assert two.step(X, y, lr=0.0, loss="mse")["r2"] == pytest.approx(wanted)


def test_plus_and_minus_one_are_learned_as_real_values():
    net = model(1)
    for _ in range(60):
        found = net.step(X, SIGNS, lr=0.1, loss="mse")
    assert found["r2"] > 0.3
    assert (np.sign(net.predict(X)[:, 0]) == SIGNS).mean() > 0.6


def test_regression_on_real_values_is_not_centred_and_has_r_squared():
    for y in (REAL, SIGNS.astype(float), SIGNS, np.stack([REAL, SIGNS], axis=1)):
        fits = KernelRegression(kernel, X, y, dtype="float64", held_out=2)
        rows = y.reshape(N, -1).astype(float)
        np.testing.assert_array_equal(fits.targets, rows)
        (fit,) = fits.fit([1e-2])
        k = kernel(X)
        scale = np.trace(k) / N
        np.testing.assert_allclose(fit.coefficients, np.linalg.solve(k + 1e-2 * scale * np.eye(N), rows), rtol=1e-9)
        part = k[4:, :4] @ np.linalg.solve(k[:4, :4] + 1e-2 * scale * np.eye(4), rows[:4])
        spread = np.square(rows[4:] - rows[4:].mean(axis=0)).sum()
        assert fit.held_out_accuracy is None
        assert fit.held_out_r2 == pytest.approx(1 - np.square(part - rows[4:]).sum() / spread)


def test_kernel_regression_says_what_it_lacks():
    for y, classes, message in (
        (np.zeros(0), None, "got 0 samples"),
        (np.array(3.0), None, "no labels"),
        (np.arange(N), 1, "two classes or more"),
        (np.arange(N), "ten", "two classes or more"),
        (REAL * np.nan, None, "finite targets"),
    ):
        x = X[: len(y)] if y.ndim else X
        with pytest.raises(UsageError, match=message):
            KernelRegression(kernel, x, y, classes)


def test_evaluation_needs_samples():
    with pytest.raises(UsageError, match="at least one sample to evaluate on, got none"):
        evaluate(model(2), X[:0], np.zeros(0, int))


def test_empty_targets_of_no_samples_are_read():
    assert len(read_targets(np.zeros(0, int), 0, 3)) == 0


def test_one_output_cannot_adapt_by_cross_entropy():
    with pytest.raises(ProgramError, match=r"cross_entropy from one output, whose softmax is 1.*\n.*\n.*loss='mse'"):
        tpc.trace(lambda x: tpc.adapt(tpc.readout(tpc.gelu(tpc.dense(x, "e")), 1)))


def test_one_output_is_checked_on_real_values():
    result = run_check(network(1), loss="mse", steps=2, batch=8, widths=(16, 32, 64), seeds=1, rank=3)
    assert len(result.rows) == 3
