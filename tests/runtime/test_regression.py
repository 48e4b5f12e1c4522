"""Kernel regression at any size: factor in place, nearby ridges, held-out samples, gradient flow."""

import numpy as np
import pytest

from tpc.errors import UsageError
from tpc.runtime.kernels.cholesky import Factor, SingularKernelError, mirror
from tpc.runtime.kernels.gradient_flow import flow, flow_coefficients
from tpc.runtime.kernels.regression import KernelRegression, centred_targets


def kernel_matrix(n, dtype=np.float64, seed=0, features=40):
    x = np.random.default_rng(seed).standard_normal((n, features))
    return (x @ x.T / features + 0.01 * np.eye(n)).astype(dtype)


def relative(a, b):
    return np.abs(np.asarray(a, np.float64) - b).max() / np.abs(b).max()


@pytest.mark.parametrize(("n", "block"), [(1, 64), (63, 64), (64, 64), (130, 64), (257, 16)])
@pytest.mark.parametrize(("dtype", "error"), [(np.float64, 1e-11), (np.float32, 2e-3)])
def test_solves_like_lapack_for_several_ridges_in_place(n, block, dtype, error):
    k = kernel_matrix(n, dtype)
    y = np.random.default_rng(1).standard_normal((n, 3)).astype(dtype)
    factor = Factor(k.copy(), block)
    for ridge in (1.0, 0.01, 0.3):  # K must survive every factorization
        x = factor.factor(ridge).solve(y)
        assert x.dtype == dtype
        assert relative(x, np.linalg.solve(k.astype(np.float64) + ridge * np.eye(n), y)) < error
        assert relative(factor.multiply(y), k.astype(np.float64) @ y) < error


def test_the_leading_part_of_the_factor_solves_the_leading_system():
    k, y = kernel_matrix(150), np.random.default_rng(2).standard_normal((90, 2))
    factor = Factor(k.copy(), 32).factor(0.1)
    want = np.linalg.solve(k[:90, :90] + 0.1 * np.eye(90), y)
    np.testing.assert_allclose(factor.solve(y), want, rtol=1e-9)
    np.testing.assert_allclose(factor.multiply(y), k[:90, :90] @ y, rtol=1e-9, atol=1e-12)
    found, iterations = factor.refined(y, 0.4, tolerance=1e-11)
    np.testing.assert_allclose(found, np.linalg.solve(k[:90, :90] + 0.4 * np.eye(90), y), rtol=1e-7, atol=1e-10)
    assert 0 < iterations < 40


def test_a_nearby_ridge_takes_few_iterations_and_a_far_one_is_told():
    factor = Factor(kernel_matrix(200), 64).factor(1.0)
    y = np.random.default_rng(3).standard_normal((200, 2))
    assert factor.refined(y, 2.0)[1] <= 8
    with pytest.raises(SingularKernelError, match="did not converge in 2 iterations"):
        factor.refined(y, 1e-6, limit=2)


def test_a_singular_matrix_is_told_with_a_ridge_that_helps():
    x = np.random.default_rng(4).standard_normal((80, 5))
    low_rank = x @ x.T
    factor = Factor(low_rank.astype(np.float32), 32)
    with pytest.raises(SingularKernelError, match=r"80 samples .* not positive definite in float32; take a larger"):
        factor.factor(-0.5)
    mean = float(np.diagonal(low_rank).mean())
    with pytest.raises(SingularKernelError, match=r"a ridge of 1e-11 of its mean .* such as 9\.5e-05 of the mean diag"):
        factor.factor(1e-11 * mean)  # told in the unit in which ridges are given
    assert factor.ridge is None
    with pytest.raises(ValueError, match="not factored"):
        factor.solve(np.ones((80, 1), np.float32))
    assert factor.factor(0.1).ridge == 0.1


def test_mirror_makes_the_upper_triangle_of_the_lower_one():
    a = np.random.default_rng(5).standard_normal((37, 37))
    wanted = np.tril(a) + np.tril(a, -1).T
    mirror(a, 8)
    np.testing.assert_array_equal(a, wanted)


def radial(a, b, out):
    b = a if b is None else b
    made = np.exp(-((a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T) / 8)
    if out is not None:
        out[...] = made
    return made


def clusters(n, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    return np.eye(3, 6)[y] * 2 + rng.standard_normal((n, 6)), y


def test_regression_with_held_out_samples_equals_two_separate_regressions():
    x, y = clusters(300)
    fits = KernelRegression(radial, x, y, 3, held_out=60, dtype="float64", block=64)
    k, targets = radial(x, None, None), centred_targets(y, 3, np.float64)
    scale = k.diagonal().mean()
    for fit in fits.fit([1e-1, 1e-3, 1e-2, 1e-6]):
        np.testing.assert_allclose(
            fit.coefficients, np.linalg.solve(k + fit.ridge * scale * np.eye(300), targets), rtol=2e-3, atol=1e-3
        )
        part = np.linalg.solve(k[:240, :240] + fit.ridge * scale * np.eye(240), targets[:240])
        assert fit.held_out_accuracy == np.mean((k[240:, :240] @ part).argmax(1) == y[240:])
    new, labels = clusters(200, seed=1)
    best = max(fits.fit([1e-2, 1.0]), key=lambda f: f.held_out_accuracy)
    logits = fits.predict(new, best.coefficients)
    np.testing.assert_allclose(logits, radial(new, x, None) @ best.coefficients)
    assert np.mean(logits.argmax(1) == labels) > 0.7  # three overlapping clusters


def test_targets_are_centred():
    t = centred_targets(np.array([0, 2]), 4, np.float32)
    np.testing.assert_allclose(t, [[0.75, -0.25, -0.25, -0.25], [-0.25, -0.25, 0.75, -0.25]])


@pytest.mark.parametrize("time", [0.01, 1.0, 30.0])
def test_gradient_flow_equals_the_eigenvalue_formula(time):
    k = kernel_matrix(120)
    y = np.random.default_rng(6).standard_normal((120, 2))
    values, vectors = np.linalg.eigh(k)
    want = vectors @ (flow(values, time)[:, None] * (vectors.T @ y))
    found, error = flow_coefficients(lambda v: k @ v, y, time, steps=60)
    np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-8 * np.abs(want).max())
    assert error < 1e-5


def test_gradient_flow_ends_in_interpolation_and_begins_with_one_step():
    x, y = clusters(60)
    fits = KernelRegression(radial, x, y, 3, dtype="float64")
    (exact,) = fits.fit([1e-9])
    late, _ = fits.flow(1e9, steps=60)
    np.testing.assert_allclose(fits.predict(x, late), fits.predict(x, exact.coefficients), atol=1e-3)
    early, _ = fits.flow(1e-6)
    np.testing.assert_allclose(early, 1e-6 / fits.scale * fits.targets, rtol=1e-4)


def test_values_out_of_range():
    x, y = clusters(20)
    with pytest.raises(UsageError, match="20 samples, 19 labels"):
        KernelRegression(radial, x, y[:19], 3)
    with pytest.raises(UsageError, match="20 held out"):
        KernelRegression(radial, x, y, 3, held_out=20)
    with pytest.raises(UsageError, match="ridges ≥ 0"):
        KernelRegression(radial, x, y, 3).fit([-1.0])
    with pytest.raises(UsageError, match="time > 0"):
        KernelRegression(radial, x, y, 3).flow(0.0)
