"""The intervals of a check mean what they say: their coverage over simulated networks, and their false alarms."""

import math

import numpy as np
import pytest
from scipy.stats import linregress, t

from tpc.tasks.intervals import Deviation, extrapolated, fit_slope, half_width, of_mean

WIDTHS = (128, 256, 512)


def test_the_slope_is_the_least_squares_one_with_students_interval():
    rng = np.random.default_rng(0)
    errors = 3 * np.array(WIDTHS)[:, None] ** -0.5 * np.exp(0.2 * rng.standard_normal((3, 4)))
    found = fit_slope("row", WIDTHS, errors)
    expected = linregress(np.log(np.repeat(WIDTHS, 4)), np.log(errors).ravel())
    assert found.slope == pytest.approx(expected.slope)
    assert found.half(0.9) == pytest.approx(t.ppf(0.95, 10) * expected.stderr)
    assert found.interval() == pytest.approx((found.slope - found.half(), found.slope + found.half()))
    assert fit_slope("row", WIDTHS, 2 * np.array(WIDTHS)[:, None] ** -0.5).half() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(("widths", "seeds"), [(WIDTHS, 2), (WIDTHS, 4), (tuple(128 << k for k in range(6)), 8)])
def test_intervals_cover_the_slope_as_often_as_they_say(widths, seeds):
    """Errors are sizes of vectors with few effective dimensions, as of networks: positive, skewed."""
    rng = np.random.default_rng(seeds)
    scales = 1 / np.arange(1, 9)
    covered = 0
    for _ in range(2000):
        noise = rng.standard_normal((len(widths), seeds, 8)) * scales
        errors = np.sqrt(np.square(noise).sum(axis=2)) * np.array(widths)[:, None] ** -0.5
        low, high = fit_slope("row", widths, errors).interval()
        covered += low <= -0.5 <= high
    assert 0.935 <= covered / 2000 <= 0.965


def test_one_network_per_width_leaves_a_wide_interval_and_two_widths_none():
    assert half_width(0.2, WIDTHS, 1) > 2
    assert half_width(0.2, (128, 256), 1) == math.inf


def test_an_error_of_zero_has_no_slope():
    found = fit_slope("row", WIDTHS, np.zeros((3, 2)))
    assert found.exact
    assert str(found) == "exact"


@pytest.mark.parametrize("dimensions", [1, 3, 10, 30])
@pytest.mark.parametrize("count", [4, 8, 16])
def test_means_of_a_right_limit_hardly_ever_deviate(dimensions, count):
    rng = np.random.default_rng([dimensions, count])
    scales = 1 / np.arange(1, dimensions + 1)
    chances = [of_mean("", rng.standard_normal((count, dimensions)) * scales * 0.001, 1.0).chance for _ in range(4000)]
    assert np.mean(np.array(chances) < 1e-3) <= 2.5e-3
    assert np.mean(np.array(chances) < 1e-2) <= 1.5e-2


def test_balls_around_means_cover_what_is_constant_in_them():
    rng = np.random.default_rng(0)
    scales, constant = 0.01 / np.arange(1, 9), rng.standard_normal(8) * 0.01
    size = math.sqrt(np.square(constant).mean())
    found = [of_mean("", constant + rng.standard_normal((8, 8)) * scales, 1.0) for _ in range(1000)]
    assert np.mean([d.bound >= size for d in found]) >= 0.95
    assert np.mean([d.chance < 1e-3 for d in found]) > 0.5


def test_the_bias_of_networks_that_are_far_off_is_no_deviation():
    shifted = Deviation("", size=0.04, error=0.004, freedom=(3.0, 21.0), bias=0.04)
    assert shifted.chance == 1
    assert Deviation("", size=0.04, error=0.004, freedom=(3.0, 21.0)).chance < 1e-5
    assert Deviation("", size=0.04, error=0.0, freedom=(1.0, 7.0)).chance == 0


def test_means_are_extrapolated_to_infinite_width():
    rng = np.random.default_rng(0)
    widths = np.array([128, 256, 512, 1024])
    constant, slope = rng.standard_normal(5) * 0.3, rng.standard_normal(5) * 20
    exact = constant + slope / widths[:, None]
    found = extrapolated("", widths, exact[:, None] + np.zeros((4, 3, 5)), 1.0)
    assert found.size == pytest.approx(math.sqrt(np.square(constant).mean()))
    assert found.radius == pytest.approx(0, abs=1e-9)
    for c, rate in ((0.0, (0.0, 0.004)), (1.0, (0.9, 1.0))):
        chances, exact = [], c * constant + slope / widths[:, None]
        for _ in range(1000):
            noise = rng.standard_normal((4, 8, 5)) * widths[:, None, None] ** -0.5
            chances.append(extrapolated("", widths, exact[:, None] + noise, 1.0).chance)
        assert rate[0] <= np.mean(np.array(chances) < 1e-3) <= rate[1]
