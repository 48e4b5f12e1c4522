"""Divisions by what is 0 for a sample of zeros are told where they are written."""

import warnings

import numpy as np
import pytest

import tpc
from tpc.errors import ProgramError, ProgramWarning


def readout(h):
    return tpc.readout(tpc.relu(h), 3)


def normalised(x):
    return readout(tpc.rms_norm(tpc.dense(x, name="embed"), eps=0))


def by_hand(x):
    h = tpc.dense(x, name="embed") + tpc.bias("embed")
    return readout(h * (2 * tpc.moment(h, h)) ** -0.5)


def averaged(x):
    h = tpc.relu(tpc.dense(x, name="embed"))
    return readout(tpc.dense(h / tpc.moment(h), name="hidden"))


def of_the_data(x):
    return readout(tpc.dense(x, name="embed") * tpc.total(x * x, "feature") ** -0.5)


def cosine(x):
    h, g = tpc.dense(x, name="embed"), tpc.dense(x, name="other", space="embed")
    return readout(h * (tpc.moment(h, g) / (tpc.moment(h, h) * tpc.moment(g, g)) ** 0.5))


def with_eps(x):
    return readout(tpc.rms_norm(tpc.dense(x, name="embed")))


def with_bias(x):
    return readout(tpc.rms_norm(tpc.dense(x, name="embed") + tpc.bias("embed", 1.0), eps=0))


def bounded(x):
    h = tpc.dense(x, name="embed")
    return readout(h / tpc.moment(tpc.cos(h)))


@pytest.mark.parametrize("network", [normalised, by_hand, averaged, of_the_data, cosine])
def test_a_division_by_zero_is_told_once_at_its_line(network):
    with pytest.warns(ProgramWarning, match=r"(?s)divides by what is 0 for a sample of zeros.*Fix: .*eps=1e-5") as told:
        program = tpc.trace(network)
    assert len(told) == 1
    code = network.__code__
    assert told[0].filename == code.co_filename
    assert code.co_firstlineno < told[0].lineno <= code.co_firstlineno + 3
    model = tpc.compile(program).build(input_dim=4, rank=6, dtype="float64")
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert np.isnan(model.predict(np.array([[0.0, 0, 0, 0], [1, 2, 3, 4]]))[0]).all()


@pytest.mark.parametrize("network", [with_eps, with_bias, bounded])
def test_what_cannot_be_zero_is_not_told(network):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        program = tpc.trace(network)
    model = tpc.compile(program).build(input_dim=4, rank=6, dtype="float64")
    assert np.isfinite(model.predict(np.zeros((1, 4)))).all()


@pytest.mark.parametrize("eps", [-1e-5, float("nan"), float("inf"), "0", True])
def test_eps_is_a_small_number(eps):
    with pytest.raises(ProgramError, match="expected a number eps ≥ 0"):
        tpc.trace(lambda x: readout(tpc.rms_norm(tpc.dense(x, name="embed"), eps=eps)))
