"""Networks in which samples meet are refused, for every limit and for finite networks, unless they declare it."""

import numpy as np
import pytest

import tpc
from tpc.errors import ProgramError

X = np.random.default_rng(0).standard_normal((6, 5))
Y = np.arange(6) % 3


def centred(x):
    h = tpc.dense(x, "embed")
    return tpc.readout(tpc.relu(h - tpc.total(h, "sample")), 3)


def attention(x):
    h = tpc.dense(x, "embed")
    return tpc.readout(tpc.relu(h * tpc.softmax(tpc.moment(h, h), "sample")), 3)


def counted(x):
    h = tpc.dense(x, "embed")
    size = tpc.total(tpc.moment(h, h) ** 0, "sample")
    return tpc.readout(tpc.relu(h), 3) * size**-1


def after_adaptation(x):
    f = tpc.adapt(tpc.readout(tpc.erf(tpc.dense(x, "embed")), 3))
    return tpc.log_softmax(f, "sample")


def logits(x):
    f = tpc.readout(tpc.erf(tpc.dense(x, "embed")), 3)
    return f - tpc.total(f, "sample")


NETWORKS = (centred, attention, counted, after_adaptation, logits)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("limit", ["pi", "nngp", "ntk"])
def test_no_limit_takes_a_network_that_joins_samples(network, limit):
    with pytest.raises(ProgramError, match=r"depends on other samples.*batch(?s:.*)tpc\.joins_samples") as e:
        tpc.compile(tpc.trace(network), limit=limit)
    assert e.value.where is not None
    assert e.value.where.file == __file__


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("parametrization", ["mup", "ntk", "standard", "pi"])
def test_no_finite_network_joins_samples(network, parametrization):
    rank = {"rank": 4} if parametrization == "pi" else {}
    with pytest.raises(ProgramError, match="depends on other samples"):
        tpc.finite(tpc.trace(network), 16, 5, parametrization=parametrization, **rank)


def test_a_listing_is_no_way_round():
    text = tpc.listing(tpc.trace(centred))
    with pytest.raises(ProgramError, match="depends on other samples"):
        tpc.compile(tpc.parse(text))


def test_a_network_that_declares_it_is_predicted_in_one_batch(monkeypatch):
    program = tpc.trace(tpc.joins_samples(centred))
    try:
        assert program.joins_samples
        model = tpc.compile(program).build(5, 4, init="paper", dtype="float64")
        many = np.random.default_rng(1).standard_normal((2000, 5))
        whole = model.predict(many)
        parts = np.concatenate([model.predict(many[:1000]), model.predict(many[1000:])])
        assert np.abs(whole - parts).max() > 1e-3  # what the declaration allows
        monkeypatch.setattr("tpc.runtime.models.model.PREDICT_ROWS", 16)
        np.testing.assert_allclose(model.predict(many), whole, rtol=1e-9, atol=1e-9)
        net = tpc.finite(program, 16, 5, dtype="float64")
        whole = net.predict(many)
        monkeypatch.setattr("tpc.runtime.networks.network.PREDICT_NUMBERS", 16)
        np.testing.assert_allclose(net.predict(many), whole, rtol=1e-9, atol=1e-9)
        assert any("joins_samples" in w for w in model.limit.warnings)
        with pytest.raises(ProgramError, match="a kernel is a function of two samples"):
            tpc.compile(program, limit="ntk").graph()
    finally:
        del centred.joins_samples


def test_the_declaration_is_written_down_and_read_again(tmp_path):
    @tpc.joins_samples
    def network(x):
        return centred(x)

    program = tpc.trace(network)
    assert tpc.listing(program).startswith("program network joins samples\n")
    assert tpc.parse(tpc.listing(program)) == program
    assert program != tpc.trace(centred, name="network")
    model = tpc.compile(program).build(5, 4, init="paper")
    model.step(X, Y, lr=0.1)
    model.save(tmp_path / "model.npz")
    np.testing.assert_array_equal(tpc.Model.load(tmp_path / "model.npz").predict(X), model.predict(X))
    net = tpc.finite(program, 8, 5)
    net.save(tmp_path / "net.npz")
    np.testing.assert_array_equal(tpc.Network.load(tmp_path / "net.npz").predict(X), net.predict(X))


def test_logits_of_a_sample_do_not_depend_on_the_batch(programs_dir):
    for name in ("mlp", "resmlp"):
        model = tpc.compile(tpc.load(programs_dir / f"{name}.py", classes=3)).build(5, 4, init="paper", dtype="float64")
        np.testing.assert_allclose(model.predict(X)[2:3], model.predict(X[2:3]), rtol=1e-12)
