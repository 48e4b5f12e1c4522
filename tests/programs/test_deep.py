"""Deep networks: few frames of Python's stack at every stage, and work that grows with their depth, not its square."""

import copy
import pickle
import sys

import numpy as np
import pytest

import tpc
from tests.support import deep
from tests.support.deep import calls, shallow
from tpc.draw.formats import FORMATS, render
from tpc.emit import STAGES
from tpc.errors import UsageError
from tpc.lower.code_lines import code_lines
from tpc.lower.kernel_module import kernel_module
from tpc.lower.kernels import lower_kernels
from tpc.lower.lowered import lower
from tpc.lower.native_module import native_module
from tpc.lower.numpy_module import numpy_module
from tpc.program.text import listing, parse
from tpc.program.verify import verify
from tpc.report.compile_report import compile_report
from tpc.runtime.models.folding import FoldOptions

X = np.linspace(-1, 1, 12).reshape(4, 3)
Y = np.array([0, 1, 1, 0])
UNEVEN = np.array([0, 1, 1, 1])


def test_two_thousand_layers_from_the_program_to_a_step():
    assert sys.getrecursionlimit() <= 3000  # no earlier compilation has raised it
    with shallow():
        program = tpc.trace(deep.mlp, layers=2000)
        model = tpc.compile(program).build(3, 2, seed=0, dtype="float64")
        atoms = set(model.atoms.values())
        first, second = (model.step(X, UNEVEN, lr=0.1)["loss"] for _ in range(2))
        assert np.isfinite(model.predict(X)).all()
    assert second < first
    assert set(model.atoms.values()) == {count + 2 * len(X) for count in atoms}


def test_a_deep_listing_is_read_back():
    with shallow():
        program = tpc.trace(deep.mlp, layers=2000)
        again = parse(listing(program))
        assert again == verify(program, "tracing")
        assert pickle.loads(pickle.dumps(program)) == program
        assert copy.deepcopy(program) is program
        assert pickle.loads(pickle.dumps(tpc.compile(program))).program == program


@pytest.mark.parametrize(
    ("program", "kind", "layers"),
    [
        (deep.mlp, "pi", 60),
        (deep.mlp, "ntk", 100),
        (deep.residual, "pi", 30),
        (deep.residual, "nngp", 40),
        (deep.normed, "pi", 80),
        (deep.normed, "nngp", 60),
        (deep.tied, "nngp", 100),
        (deep.gated, "pi", 6),
        (deep.adapted, "pi", 30),
    ],
)
def test_every_stage_of_deep_networks(program, kind, layers):
    with shallow(300):
        limit = tpc.compile(tpc.trace(program, layers=layers), limit=kind)
        for stage in STAGES:
            if kind != "pi" and stage in ("update", "cuda"):
                with pytest.raises(UsageError):
                    limit.emit(stage)
            else:
                assert limit.emit(stage).count("\n") > 1, stage
        assert str(len(limit.program.nodes)) in limit.summary()


def test_momentum_clipping_and_folding_of_a_deep_network():
    with shallow():
        limit = tpc.compile(tpc.trace(deep.mlp, layers=60))
        native = native_module(lower(limit.graph(degree=2, halves=True), True, limit.graph(degree=2)))
        model = limit.build(3, 2, seed=0, mode="folded", fold=FoldOptions(degree=2, window=8))
        for _ in range(4):
            found = model.step(X, Y, lr=0.01, momentum=0.5, clip=1.0)
    assert np.isfinite(found["loss"])
    assert native.compiled.count("TPC_API int") * 10 < native.c.count("TPC_API int")


def test_reports_and_drawings_of_a_deep_network():
    with shallow():
        limit = tpc.compile(tpc.trace(deep.mlp, layers=60))
        for kind in FORMATS:
            assert render(limit.to_networkx(), kind, "deep")
        assert "<svg" in compile_report(limit, "deep", "")
        found = code_lines(limit.graph(), limit.emit("numpy"))
    assert len(found) > len(limit.graph().nodes) / 2


def compiled(program, kind, layers):
    limit = tpc.compile(tpc.trace(program, layers=layers), limit=kind)
    graph = limit.graph()
    return numpy_module(lower(graph)) if kind == "pi" else kernel_module(lower_kernels(graph))


@pytest.mark.parametrize(
    ("program", "kind", "layers"),
    [
        (deep.mlp, "pi", 24),
        (deep.mlp, "ntk", 24),
        (deep.residual, "pi", 24),
        (deep.residual, "nngp", 48),
        (deep.residual, "ntk", 48),
        (deep.normed, "pi", 20),
        (deep.normed, "nngp", 24),
        (deep.gated, "pi", 6),
        (deep.adapted, "pi", 16),
    ],
)
def test_twice_the_layers_are_twice_the_work(program, kind, layers):
    compiled(program, kind, 3)  # derive the kernels
    once, twice = (calls(lambda n=n: compiled(program, kind, n)) for n in (layers, 2 * layers))
    assert twice < 2.3 * once
    short, long = (len(compiled(program, kind, n)) for n in (layers, 2 * layers))
    assert long < 2.3 * short


def test_lifted_blocks_compute_the_same(monkeypatch):
    limit = tpc.compile(tpc.trace(deep.residual, layers=3))
    losses = []
    for many in (1, 10_000):
        monkeypatch.setattr("backends.lifted.MANY", many)
        model = limit.build(3, 4, seed=1, dtype="float64")
        losses.append([model.step(X, Y, lr=0.1, momentum=0.5, clip=1.0)["loss"] for _ in range(3)])
    assert losses[0] == losses[1]
