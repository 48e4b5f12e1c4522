"""Networks without a kernel limit are told why, at the user's line."""

import re

import pytest

import tpc
from tpc.errors import ProgramError, UsageError


def refusal(network, limit="ntk"):
    with pytest.raises(ProgramError) as caught:
        tpc.compile(tpc.trace(network), limit=limit).graph()
    assert caught.value.exit_code == 2
    assert caught.value.where is not None
    assert caught.value.where.file == __file__
    return str(caught.value)


def test_an_adapted_network(programs_dir):
    with pytest.raises(ProgramError, match=r"maml\.py:\d+: kernel limits are those of a network before adaptation"):
        tpc.compile(tpc.load(programs_dir / "maml.py"), limit="nngp").graph()


def test_samples_that_depend_on_each_other():
    def network(x):
        h = tpc.dense(x, "embed")
        return tpc.readout(tpc.relu(h) * tpc.total(tpc.moment(h, h), "sample"), 2)

    text = refusal(network)
    assert "depends on other samples" in text
    assert 'tpc.total(tpc.moment(h, h), "sample")' in text


def test_mixed_outputs():
    def network(x):
        return tpc.log_softmax(tpc.readout(tpc.relu(tpc.dense(x, "embed")), 3), "class")

    assert "outputs are mixed" in refusal(network)


def test_an_output_that_is_not_linear_in_readouts():
    def network(x):
        return tpc.readout(tpc.relu(tpc.dense(x, "embed")), 3) ** 2

    assert "not a linear function of readouts" in refusal(network)


def test_an_output_that_multiplies_random_numbers():
    def network(x):
        f = tpc.readout(tpc.relu(tpc.dense(x, "embed")), 3)
        return f * tpc.bias("readout", 1.0)

    assert "multiplies two random numbers" in refusal(network)


def test_an_output_with_a_part_that_is_not_random():
    def network(x):
        h = tpc.relu(tpc.dense(x, "embed"))
        return tpc.readout(h, 3) + tpc.moment(h)

    assert "not random at initialization" in refusal(network)


def test_an_output_inside_the_network():
    def network(x):
        h = tpc.dense(x, "embed")
        f = tpc.readout(tpc.relu(h), 3)
        return tpc.readout(tpc.total(f, "class") * tpc.relu(h), 3)

    assert re.search("outputs are mixed|random at any width", refusal(network))


def test_an_output_times_a_hidden_vector():
    def network(x):
        h = tpc.dense(x, "embed")
        f = tpc.readout(tpc.relu(h), 1, "inner")
        return tpc.readout(f * tpc.relu(h), 3)

    with pytest.raises(ProgramError):
        tpc.compile(tpc.trace(network), limit="ntk").graph()


def test_a_jump_has_an_nngp_limit_and_no_ntk():
    def network(x):
        return tpc.readout(tpc.sign(tpc.dense(x, "embed")), 3)

    text = refusal(network)
    assert "infinite at equal samples" in text
    assert "tpc.sign" in text
    limit = tpc.compile(tpc.trace(network), limit="nngp")
    assert limit.kernel([[1.0, 2.0]])["nngp"] == pytest.approx(1.0)


def test_a_nonlinearity_of_a_sum_of_nonlinearities():
    def network(x):
        h = tpc.dense(x, "embed")
        return tpc.readout(tpc.relu(tpc.erf(h) + tpc.relu(h * tpc.moment(h, h))), 3)

    text = refusal(network)
    assert "kernel limits" in text
    assert "π-limit" not in text


def test_a_network_without_weights_that_matter():
    def network(x):
        return tpc.readout(tpc.dense(x, "embed", 0.0), 3)

    assert "does not depend on any weight" in refusal(network)


def test_calls_of_the_wrong_kind(programs_dir):
    program = tpc.load(programs_dir / "mlp.py")
    with pytest.raises(UsageError, match="is a kernel and not a model that is trained"):
        tpc.compile(program, limit="ntk").build(5, 3)
    with pytest.raises(UsageError, match="the pi-limit is no kernel"):
        tpc.compile(program).kernel([[1.0]])
    with pytest.raises(UsageError, match="has the kernels nngp, got 'ntk'"):
        tpc.compile(program, limit="nngp").kernel([[1.0]], only=["ntk"])
    with pytest.raises(UsageError, match="is a kernel, which has no update"):
        tpc.compile(program, limit="ntk").emit("update")
