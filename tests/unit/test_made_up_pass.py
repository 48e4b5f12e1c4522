"""A pass of one's own between planning and scheduling, without a change to any other file."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import sympy as sp

import tpc
from backends.numpy_backend import NumpyBackend
from tests.support.problems import batch, make
from tpc.errors import InternalError
from tpc.limits.graph import atoms_in
from tpc.lower.ir import Loop
from tpc.lower.lowered import STAGES, Stage, before, lower, stage_listing
from tpc.program.rewrite import Rewriter
from tpc.program.tensor import Add, Constant, Contract

HALF = Constant(sp.Rational(1, 2))


class Halves(Rewriter):
    """Σ over atoms becomes ½ Σ + ½ Σ, as if two machines had half of it each."""

    def rule(self, n):
        made = self.rebuilt(n)
        if isinstance(n, Contract) and atoms_in(n.over):
            half = Contract((HALF, made), ())
            return Add((half, half))
        return made


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


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("mode", ["exact", "folded"])
def test_steps_with_it_give_the_same_numbers(program, backend, mode, monkeypatch):
    def trained(stages):
        dtype = "float64" if backend == "numpy" else "float32"
        model = make(program, backend=backend, dtype=dtype, mode=mode)
        assert model.backend.stages == stages
        for seed in range(3):
            model.step(*batch(seed), lr=0.3, momentum=0.5, clip=1.0)
        return model.state()

    plain = trained(STAGES)
    monkeypatch.setattr(NumpyBackend, "stages", HALVED)  # and what is derived from it
    made = trained(HALVED)
    assert plain.keys() == made.keys()
    for name, value in plain.items():
        assert np.array_equal(value, made[name]), name


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
