"""What tracing records: weights in order, spaces that merge, shared layers, source lines."""

import pytest
import sympy as sp

import tpc
from tpc.errors import InternalError, ProgramError, UsageError
from tpc.program import ir, tensor
from tpc.program.axes import FEATURE, SAMPLE, Axis
from tpc.program.context import tracing
from tpc.program.program import Program
from tpc.program.trace import scalar
from tpc.program.verify import verify


def names(program):
    return [w.name for w in program.weights]


def test_weights_in_the_order_of_use(programs_dir):
    assert names(tpc.load(programs_dir / "mlp.py", hidden=3)) == [
        "embed",
        "embed.bias",
        "hidden1",
        "hidden1.bias",
        "hidden2",
        "hidden2.bias",
        "readout",
        "readout.bias",
    ]
    assert names(tpc.load(programs_dir / "resmlp.py", blocks=1)) == [
        "embed",
        "embed.bias",
        "block1",
        "block1.bias",
        "readout",
        "readout.bias",
    ]


def test_every_layer_of_an_mlp_has_its_own_space(programs_dir):
    assert tpc.load(programs_dir / "mlp.py", hidden=3).spaces == ("embed", "hidden1", "hidden2")


def test_a_residual_stream_is_one_space(programs_dir):
    program = tpc.load(programs_dir / "resmlp.py", blocks=3)
    assert program.spaces == ("embed",)
    assert all(w.out == w.inn for w in program.weights if isinstance(w, ir.MatrixWeight))


def layers(*, first="embed", join="add", pinned=None, order=0):
    def network(x):
        a = tpc.dense(x, first)
        b = tpc.dense(tpc.relu(a), "other", space=pinned)
        pair = (a, b) if order == 0 else (b, a)
        if join == "add":
            h = tpc.relu(pair[0] + pair[1])
        elif join == "multiply":
            h = pair[0] * pair[1]
        else:
            h = tpc.relu(a) * tpc.moment(*pair)
        return tpc.readout(h, 3)

    return tpc.trace(network)


@pytest.mark.parametrize("join", ["add", "multiply", "moment"])
@pytest.mark.parametrize("order", [0, 1])
def test_vectors_that_meet_share_a_space(join, order):
    program = layers(join=join, order=order)
    assert program.spaces == (("embed", "other")[order],)  # the space of the left one gives the name
    verify(program, "tracing")


@pytest.mark.parametrize("order", [0, 1])
def test_a_pinned_name_wins(order):
    assert layers(pinned="stream", order=order).spaces == ("stream",)


def test_spaces_merge_through_a_chain():
    def network(x):
        a, b, c, d = (tpc.dense(x, n) for n in "abcd")
        left, right = a + b, c + d
        return tpc.readout(tpc.relu(left + right), 3)

    assert tpc.trace(network).spaces == ("a",)


def test_a_space_pinned_late_renames_what_it_joined():
    def network(x):
        a = tpc.dense(x, "a")
        b = tpc.dense(x, "b", space="stream")
        return tpc.readout(tpc.relu(a + b) + tpc.bias("a"), 3)

    program = tpc.trace(network)
    assert program.spaces == ("stream",)
    verify(program, "tracing")


def test_two_layers_of_one_name_are_one_weight():
    def network(x):
        h = tpc.dense(x, "embed")
        for _ in range(3):
            h = h + tpc.dense(tpc.relu(h), "cell") + tpc.bias("cell")
        return tpc.readout(tpc.relu(h), 3)

    program = tpc.trace(network)
    assert names(program) == ["embed", "cell", "cell.bias", "readout"]
    assert sum(isinstance(n, ir.MatMul) for n in program.nodes) == 3


@pytest.mark.parametrize("swap", [False, True])
def test_a_shared_layer_may_join_its_spaces_after_the_first_use(swap):
    def network(x):
        h = tpc.dense(x, "embed")
        for _ in range(2):
            y = tpc.dense(tpc.relu(h), "cell")
            h = y + h if swap else h + y
        return tpc.readout(tpc.relu(h), 3)

    assert names(tpc.trace(network)) == ["embed", "cell", "readout"]


def test_a_shared_readout():
    def network(x):
        h = tpc.dense(x, "embed")
        f = tpc.readout(tpc.relu(h), 3)
        h = h + tpc.dense(tpc.relu(h), "hidden1")
        return f + tpc.readout(tpc.relu(h), 3)

    assert sorted(names(tpc.trace(network))) == ["embed", "hidden1", "readout"]


@pytest.mark.parametrize(
    "second",
    [
        lambda h: tpc.dense(tpc.relu(tpc.dense(tpc.relu(h), "cell")), "cell"),  # another input space
        lambda h: tpc.dense(tpc.relu(h), "embed"),
        lambda h: h * tpc.total(tpc.readout(tpc.dense(tpc.relu(h), "n"), 4, "readout"), "class"),
    ],
)
def test_a_name_means_one_layer(second):
    def network(x):
        h = tpc.dense(x, "embed")
        return tpc.readout(tpc.relu(second(h)), 3)

    with pytest.raises(ProgramError, match="is used again as something else: expected"):
        tpc.trace(network)


def test_two_traces_of_one_network_are_the_same_nodes(programs_dir):
    a, b = (tpc.load(programs_dir / "mlp.py", hidden=2) for _ in range(2))
    assert a == b
    assert a["logits"] is b["logits"]
    assert a != tpc.load(programs_dir / "mlp.py", hidden=3)


def test_nodes_know_the_line_they_came_from(programs_dir):
    program = tpc.load(programs_dir / "mlp.py", hidden=2)
    found = {type(n).__name__: program.where(n) for n in program.nodes if program.where(n)}
    assert "tpc.dense(relu(h)" in found["MatMul"].text
    assert found["MatMul"].file == str(programs_dir / "mlp.py")
    text = (programs_dir / "mlp.py").read_text().splitlines()
    assert text[found["MatMul"].line - 1].strip() == found["MatMul"].text


def test_settings_change_the_program(programs_dir):
    program = tpc.load(programs_dir / "mlp.py", hidden=1, classes=7, output_scale=2)
    assert program["logits"].axes[-1].size == 7
    assert names(program) == ["embed", "embed.bias", "readout", "readout.bias"]


def test_a_network_needs_no_file():
    assert tpc.trace(lambda x: tpc.readout(tpc.relu(tpc.dense(x, "embed")), 2), name="tiny").name == "tiny"


def test_operations_outside_a_trace_say_so():
    with pytest.raises(UsageError, match=r"only while one is traced.*tpc\.trace"):
        tpc.bias("embed")


def test_an_unknown_output_is_our_bug():
    p = layers()
    with pytest.raises(InternalError, match="has no output loss"):
        p["loss"]
    with pytest.raises(InternalError, match="not a finite tensor"):
        Program("p", (("v", p.weights[0]),)).tensor("v")
    assert "logits" in p
    assert "loss" not in p


def test_all_names_of_the_package_exist():
    for name in tpc.__all__:
        assert getattr(tpc, name) is not None
    assert set(tpc.__all__) <= set(dir(tpc))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        tpc.nothing  # noqa: B018 - the access is what raises


def test_dense_contracts_a_named_axis_of_data():
    place = Axis("place", 4)
    data = tensor.Input("x", (SAMPLE, place, FEATURE))

    def contracted(**options):
        with tracing():
            h = tpc.dense(scalar(data.axes, lambda: data), "embed", **options)
            return h.axes, h.build_vector()

    for options, inner, rest in (({}, FEATURE, (SAMPLE, place)), ({"axis": "place"}, place, (SAMPLE, FEATURE))):
        axes, node = contracted(**options)
        assert axes == node.axes == rest
        assert node.terms == ((data, ir.VectorWeight("embed", node.space, (inner,), "input", sp.Integer(1)), (inner,)),)
    with pytest.raises(ProgramError, match="expected one of the axes sample, place, feature, got 'time'"):
        contracted(axis="time")
    with pytest.raises(ProgramError, match="not the samples"):
        contracted(axis="sample")
    with pytest.raises(ProgramError, match="contracts a vector along its space"):
        tpc.trace(lambda x: tpc.readout(tpc.dense(tpc.dense(x, "embed"), "hidden", axis="feature"), 2))
    with pytest.raises(ProgramError, match="data with a feature axis"):
        tpc.trace(lambda x: tpc.readout(tpc.dense(tpc.total(x, "feature"), "embed"), 2))
