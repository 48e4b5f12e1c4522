"""An instruction is added by its class, its rules and its lines, in one file: here a cumulative sum along an axis.

CONTRIBUTING.md lists what there is to write; this test is that list, from the traced program to a training step.
"""

from __future__ import annotations

import numpy as np
import pytest

import tpc
from tests.support.problems import CLASSES, DIM, RANK, assert_gradients, batch, generic_state
from tpc.errors import InternalError, ProgramError
from tpc.limits.text import listing as limit_listing
from tpc.lower.layout import layout
from tpc.lower.numpy_statements import expression
from tpc.lower.writer import Writer
from tpc.passes.adapt import adapt
from tpc.passes.backward import Flow, backward, vjp
from tpc.passes.loss import attach_loss
from tpc.passes.samples import joined
from tpc.passes.substitute import Substitution
from tpc.program import tensor
from tpc.program.axes import SAMPLE, Axes, Axis, union, without
from tpc.program.lines import Names, operation
from tpc.program.node import node, topological
from tpc.program.parse import OPERATIONS
from tpc.program.program import Program
from tpc.program.tensor import Tensor
from tpc.program.text import listing, parse
from tpc.program.trace import scalar
from tpc.program.verify import verify
from tpc.runtime.networks.interpret import Evaluation, value

CLASS = Axis("class", CLASSES)


# --- the instruction -------------------------------------------------------------------------------------------------


@node
class Running(Tensor):
    """Σ of the values up to each place along an axis, or from it on."""

    arg: Tensor
    axis: Axis
    onward: bool

    @property
    def joins(self) -> Axes:
        return (self.axis,)

    @classmethod
    def build(cls, arg: Tensor, axis: Axis, onward: bool) -> Tensor:
        return cls(tensor.broadcast(arg, (axis,)), axis, onward)


def running(x: tpc.Scalar, axis: Axis) -> tpc.Scalar:
    return scalar(x.axes, lambda: Running.build(x.build_tensor(), axis, False), x)


@vjp.register
def _(n: Running, dy: Tensor) -> Flow:
    # s_k = Σ_{j≤k} t_j:  dt_j = Σ_{k≥j} ds_k
    share = Running.build(dy, n.axis, not n.onward)
    yield n.arg, tensor.contract((share,), without(union(share.axes), n.arg.axes))


@operation.register
def _(n: Running, names: Names) -> str:
    return f"{'onward' if n.onward else 'running'}[{n.axis}]({names[n.arg]})"


@pytest.fixture(autouse=True)
def reading(monkeypatch):
    for word, onward in (("running", False), ("onward", True)):
        rule = lambda p, r, onward=onward: Running(p.tensor(r.body), p.axis(r.brackets), onward)  # noqa: E731
        monkeypatch.setitem(OPERATIONS, word, rule)


@value.register
def _(n: Running, run: Evaluation):
    return summed(run.array(n.arg), n.arg.axes.index(n.axis), n.onward)


@expression.register
def _(x: Running, w: Writer) -> str:
    place, name = layout(x.axes).index(x.axis), w.array(x.arg)
    return f"np.flip(np.flip({name}, {place}).cumsum({place}), {place})" if x.onward else f"{name}.cumsum({place})"


def summed(x: np.ndarray, place: int, onward: bool) -> np.ndarray:
    return np.flip(np.flip(x, place).cumsum(place), place) if onward else x.cumsum(place)


# --- through the compiler --------------------------------------------------------------------------------------------


def network(x):
    h = tpc.dense(x, name="embed")
    g = tpc.dense(tpc.erf(h), name="hidden") + tpc.bias("hidden")
    return running(tpc.readout(tpc.relu(g), CLASSES), CLASS)


def plain(x):
    h = tpc.dense(x, name="embed")
    g = tpc.dense(tpc.erf(h), name="hidden") + tpc.bias("hidden")
    return tpc.readout(tpc.relu(g), CLASSES)


def of(nodes) -> list[Running]:
    return [n for n in nodes if isinstance(n, Running)]


def test_it_is_traced_printed_and_read():
    program = tpc.trace(network)
    text = listing(program)
    assert "scalar[sample, class] = running[class](s1)" in text
    assert parse(text)["logits"] is program["logits"]
    assert listing(backward(attach_loss(program, "mse"))).count("onward[class]") == 1


def test_the_verifier_knows_its_axes():
    x = tensor.Input("x", (SAMPLE,))
    with pytest.raises(InternalError, match="joins class, which its operands lack"):
        verify(Program("p", (("out", Running(x, CLASS, False)),)), "a pass")
    assert Running.build(x, CLASS, False).axes == (SAMPLE, CLASS)


def test_samples_that_meet_in_it_are_refused():
    def meeting(x):
        return running(plain(x), SAMPLE)

    with pytest.raises(ProgramError, match="depends on other samples here"):
        tpc.compile(tpc.trace(meeting))
    with pytest.raises(ProgramError, match="outputs are mixed here"):
        tpc.compile(tpc.trace(network), limit="ntk").graph()
    x = tensor.Input("x", (SAMPLE, CLASS))
    assert joined(Running(x, SAMPLE, False))
    assert not joined(Running(x, CLASS, False))


def test_axes_of_it_are_renamed():
    support, x = Axis("support"), tensor.Input("x", (SAMPLE, CLASS))
    moved = Substitution({x: tensor.Input("z", (support, CLASS))}, axes={SAMPLE: support})
    assert moved.tensor(Running(x, SAMPLE, False)) is Running(tensor.Input("z", (support, CLASS)), support, False)
    primed = tensor.rename(Running(x, CLASS, False), {CLASS: CLASS.primed()})
    assert primed.axes == (SAMPLE, CLASS.primed())


def test_its_limit_is_that_of_its_operand():
    graph = tpc.compile(tpc.trace(network)).graph("mse")
    (made,) = of(topological([graph["logits"]]))
    assert made is graph["logits"]
    assert made.arg is tpc.compile(tpc.trace(plain)).graph("mse")["logits"]
    assert len(of(graph.nodes)) == 2
    assert "= running[class](" in limit_listing(graph)


@pytest.mark.parametrize(("backend", "dtype", "rtol"), [("numpy", "float64", 1e-12), ("native", "float32", 1e-4)])
def test_a_step_computes_it(backend, dtype, rtol):
    models = {f: tpc.compile(tpc.trace(f)).build(DIM, RANK, dtype=dtype, backend=backend) for f in (network, plain)}
    start = generic_state(models[plain])
    for model in models.values():
        model.load_state(start)
    x, _ = batch()
    logits = models[plain].predict(x)
    np.testing.assert_allclose(models[network].predict(x), logits.cumsum(1), rtol=rtol, atol=rtol)
    if dtype == "float64":
        assert_gradients(models[network], [("embed", (1, 2)), ("embed", (4, 0))], rel=1e-6, abs=1e-9)
    models[network].step(x, np.arange(len(x)) % CLASSES, lr=0.1)
    assert not np.allclose(start["embed.A"], models[network].state()["embed.A"])


def test_a_finite_network_computes_it():
    nets = [tpc.finite(tpc.trace(f), 16, DIM, dtype="float64", seed=3) for f in (network, plain)]
    x, _ = batch()
    np.testing.assert_allclose(nets[0].predict(x), nets[1].predict(x).cumsum(1), rtol=1e-12)


def test_adapted_networks_have_it():
    def adapted(x):
        return adapt(network(x), steps=1, step_size=0.1)

    graph = tpc.compile(tpc.trace(adapted)).graph()
    assert {n.onward for n in of(graph.nodes)} == {False, True}


def test_it_can_be_simplified_with_what_it_is_made_of():
    a, b = tensor.Input("a", (CLASS,)), tensor.Input("b", (CLASS,))
    image = Substitution({b: tensor.ZERO}).tensor(Running(tensor.add((a, b)), CLASS, True))
    assert image is Running(a, CLASS, True)
