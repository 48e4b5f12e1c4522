"""A pass of one's own between planning and scheduling, without a change to any other file."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import sympy as sp

import tpc
from backends import native_runtime, numpy_runtime
from backends.numpy_backend import NumpyBackend
from tests.support.problems import batch, make
from tpc.errors import InternalError
from tpc.limits.nodes import atoms_in
from tpc.lower.cuda_module import cuda_module
from tpc.lower.instructions import Loop
from tpc.lower.lowered import STAGES, Stage, before, lower, stage_listing
from tpc.lower.native_module import native_module
from tpc.lower.numpy_module import numpy_module
from tpc.lower.numpy_statements import expression
from tpc.program.lines import operation
from tpc.program.node import node
from tpc.program.rewrite import Rewriter
from tpc.program.tensor import Add, Constant, Contract, Tensor

HALF = Constant(sp.Rational(1, 2))


class Halves(Rewriter):
    """Σ over atoms becomes ½ Σ + ½ Σ, as if two machines had half of it each."""

    def rule(self, n):
        made = self.rebuilt(n)
        if isinstance(n, Contract) and atoms_in(n.over):
            half = Contract((HALF, made), ())
            return Add((half, half))
        return made


@node
class Counted(Tensor):
    """A made-up instruction: the same values, which every machine would add up."""

    arg: Tensor

    def _find_axes(self):
        return self.arg.axes


@expression.register
def _printed(x: Counted, w):
    return f"rt.counted({w.array(x.arg)})"


@operation.register
def _listed(x: Counted, names):
    return f"counted({names[x.arg]})"


class Counts(Rewriter):
    """Every sum over atoms is counted."""

    def rule(self, n):
        made = self.rebuilt(n)
        return Counted(made) if isinstance(n, Contract) and atoms_in(n.over) else made


COUNTED = before("schedule", Stage("counts", lambda lowered: lowered.rewritten(Counts())))
HALVED = before("schedule", Stage("halves", lambda lowered: lowered.rewritten(Halves())))


@pytest.fixture
def program(programs_dir):
    return tpc.load(programs_dir / "mlp.py", classes=3)


def test_it_runs_between_plan_and_schedule(program):
    assert [s.name for s in HALVED] == ["concrete", "plan", "halves", "schedule"]
    graph = tpc.compile(program).graph()
    plain, made = lower(graph), lower(graph, stages=HALVED)
    loops, same = ([s for s in each.gradients.steps if isinstance(s, Loop)] for each in (made, plain))
    assert [len(loop.sums) for loop in loops] == [len(loop.sums) for loop in same]
    assert len(made.gradients.steps) > len(plain.gradients.steps)
    assert stage_listing(made, "halves").count("mul(1/2,") > stage_listing(plain, "halves").count("mul(1/2,")


@pytest.mark.parametrize("stages", [HALVED, COUNTED], ids=lambda stages: stages[2].name)
@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("mode", ["exact", "folded"])
def test_steps_with_it_give_the_same_numbers(program, backend, mode, stages, monkeypatch):
    counted = []
    for runtime in (numpy_runtime, native_runtime):
        monkeypatch.setattr(runtime, "counted", lambda x: counted.append(x.shape) or x, raising=False)

    def trained(stages):
        dtype = "float64" if backend == "numpy" else "float32"
        model = make(program, backend=backend, dtype=dtype, mode=mode)
        assert model.backend.stages == stages
        for seed in range(3):
            model.step(*batch(seed), lr=0.3, momentum=0.5, clip=1.0)
        return model.state()

    plain = trained(STAGES)
    assert not counted
    monkeypatch.setattr(NumpyBackend, "stages", stages)  # and what is derived from it
    made = trained(stages)
    sums = sum(len(s.sums) for s in lower(tpc.compile(program).graph()).gradients.steps if isinstance(s, Loop))
    assert len(counted) >= 3 * sums if stages is COUNTED else not counted
    assert plain.keys() == made.keys()
    for name, value in plain.items():
        assert np.array_equal(value, made[name]), name


def test_a_made_up_instruction_is_in_listings_and_code(program):
    made = lower(tpc.compile(program).graph(), stages=COUNTED)
    assert "= counted(" in stage_listing(made, "counts")
    sums = sum(len(s.sums) for f in made.functions for s in f.steps if isinstance(s, Loop))
    for text in (numpy_module(made), native_module(made).python, cuda_module(made).python):
        assert text.count("= rt.counted(") == sums


def test_a_pass_that_breaks_a_rule_is_named(program):
    graph = tpc.compile(program).graph()

    def three(t):
        return Contract((t, t, t), ())

    broken = before("schedule", Stage("three", lambda lowered: lowered.rewritten(three)))
    with pytest.raises(InternalError, match=r"after three, .*: <Contract> multiplies 3 tensors"):
        lower(graph, stages=broken)
    lost = before("schedule", Stage("lost", lambda x: x.with_function(replace(x.gradients, outputs=x.predict.outputs))))
    with pytest.raises(
        InternalError, match=r"after lost, .*: a step takes embed:gradient, which gradients do not give"
    ):
        lower(graph, stages=lost)


def test_every_stage_is_a_different_listing(program):
    graph = tpc.compile(program).graph()
    texts = [stage_listing(lower(graph, stages=STAGES[:k]), "") for k in range(1, len(STAGES) + 1)]
    assert all(a != b for a, b in pairwise(texts))
