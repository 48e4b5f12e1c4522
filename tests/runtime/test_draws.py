"""Networks drawn in other ways are distributed like networks at random: even Ω, and matrices drawn where applied."""

import numpy as np
import pytest

import tpc
from tests.support.checked import RIGHT
from tpc.runtime.kernels.empirical import empirical_kernels
from tpc.runtime.networks.balanced import balanced_gaussian
from tpc.runtime.networks.finite import independent_gaussian
from tpc.runtime.networks.lazy_gaussian import lazy_gaussian


def test_even_points_are_gaussian_and_their_averages_much_closer():
    ways = (balanced_gaussian, independent_gaussian)
    draws = {draw: [draw("s", 5, 1024, seed) for seed in range(20)] for draw in ways}
    errors = {}
    for draw, omegas in draws.items():
        relu = np.array([np.maximum(o, 0).T @ np.maximum(o, 0) / 1024 for o in omegas])
        wanted = np.where(np.eye(5), 1 / 2, 1 / (2 * np.pi))
        errors[draw] = np.sqrt(np.square(relu - wanted).mean())
        assert np.abs(relu.mean(axis=0) - wanted).max() < 0.03
    assert errors[balanced_gaussian] < errors[independent_gaussian] / 5
    assert (balanced_gaussian("s", 5, 1024, 0) == draws[balanced_gaussian][0]).all()
    assert balanced_gaussian("s", 3, 100, 0).shape == (100, 3)


def test_a_lazy_matrix_is_one_matrix():
    """What it does is linear, agrees with its transpose, and does not change."""
    rng = np.random.default_rng(0)
    w = lazy_gaussian(200, 0.3, np.random.default_rng(1))
    x, y = rng.standard_normal((3, 200)), rng.standard_normal((2, 4, 200))
    wx, wty = w.apply(x), w.transposed().apply(y)
    assert np.einsum("abn,kn->abk", y, wx) == pytest.approx(np.einsum("abn,kn->abk", wty, x))
    more = rng.standard_normal(200)
    assert w.apply((x[0] - 2 * more)[None])[0] == pytest.approx(wx[0] - 2 * w.apply(more[None])[0])
    assert w.apply(x) == pytest.approx(wx)
    assert w.scaled(-2).transposed().apply(y) == pytest.approx(-2 * wty)
    assert np.einsum("n,n", w.apply(more[None])[0], y[0, 0]) == pytest.approx(wty[0, 0] @ more)
    assert w.apply(np.zeros((2, 200))) == pytest.approx(0)


def test_a_lazy_matrix_has_independent_entries_of_its_variance():
    entries = []
    for seed in range(400):
        w = lazy_gaussian(6, 0.5, np.random.default_rng(seed))
        w.apply(np.random.default_rng(seed).standard_normal((2, 6)))
        w.transposed().apply(np.ones((1, 6)))
        entries.append(w.apply(np.eye(6)).ravel())
    covariance = np.cov(np.array(entries).T)
    assert np.diagonal(covariance) == pytest.approx(0.25, abs=0.1)
    assert np.abs(covariance - np.diag(np.diagonal(covariance))).max() < 0.08


@pytest.mark.parametrize("name", ["mlp", "shared weights"])
def test_kernels_of_lazy_networks_scatter_like_those_of_networks(name):
    limit = tpc.compile(RIGHT[name](), limit="ntk")
    x = np.random.default_rng(0).standard_normal((4, 10))
    wanted = limit.kernel(x)["ntk"]
    found = [
        np.array([empirical_kernels(limit, x, 256, seed, lazy)["ntk"] / wanted - 1 for seed in range(60)])
        for lazy in (False, True)
    ]
    sizes = [np.sqrt(np.square(f).mean()) for f in found]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.25)
    assert all(np.abs(f.mean(axis=0)).max() < 4 * size / np.sqrt(60) + 0.02 for f, size in zip(found, sizes))
