"""A limit is one entry of a table: a kernel and a trained model are added here, and nothing else knows of them."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import sympy as sp
from click.testing import CliRunner

import tpc
from tpc.cli.main import main
from tpc.errors import UsageError
from tpc.limits.kinds import ALL, LIMITS, LimitKind, Recipe, add
from tpc.limits.ntk import ntk_limit
from tpc.passes.per_sample import gradients, single_output
from tpc.passes.project import PREFIX
from tpc.program import ir, tensor
from tpc.program.functions import argument
from tpc.report.compile_report import compile_report
from tpc.tasks.check import run_check

MLP = Path(__file__).parents[2] / "programs" / "mlp.py"


def alignment(program):
    """The tangent kernel divided by its diagonals' root: 1 where a sample meets itself."""
    graph = ntk_limit(program)
    whole, diagonal = graph["ntk"], graph["ntk.diagonal"]
    (row,) = diagonal.axes
    (column,) = (a for a in whole.axes if a != row)
    root = tensor.elementwise(1 / sp.sqrt(argument(0)), (diagonal,))
    found = tensor.contract((whole, root, tensor.rename(root, {row: column})))
    one = tensor.contract((diagonal, root, root))
    return replace(graph, limit="alignment", outputs=(("alignment", found), ("alignment.diagonal", one)))


def halved(program):
    """The program with half the gradient of its first layer, which then learns half as fast."""
    half = tensor.Constant(sp.Rational(1, 2))
    outputs = dict(program.outputs)
    outputs[f"{PREFIX}embed"] = ir.lincomb([(half, outputs[f"{PREFIX}embed"], ())])
    return replace(program, outputs=tuple(outputs.items()))


def alignment_recipe():
    return Recipe((("single_output", single_output), ("gradients", gradients)), alignment)


def halved_recipe():
    own = LIMITS["pi"].recipe()
    passes = []
    for name, run in own.passes:
        passes.append((name, run))
        if name == "backward":
            passes.append(("halved", halved))
    return Recipe(tuple(passes), own.derive, own.fold)


@pytest.fixture
def made_up():
    add(LimitKind("alignment", "alignment kernel", "kernel", alignment_recipe, {"alignment": ALL}))
    add(LimitKind("halved", "halved limit", "model", halved_recipe))
    yield
    for name in ("alignment", "halved"):
        del LIMITS[name]


@pytest.mark.usefixtures("made_up")
def test_a_kernel_that_is_added():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((7, 5))
    program = tpc.load(MLP)
    limit = tpc.compile(program, limit="alignment")
    want = tpc.compile(program, limit="ntk").kernel(x)["ntk"]
    root = np.sqrt(np.diag(want))
    for backend in ("numpy", "native"):
        found = limit.kernel(x, backend=backend)
        assert list(found) == ["alignment"]
        np.testing.assert_allclose(found["alignment"], want / np.outer(root, root), rtol=1e-12)
        np.testing.assert_allclose(limit.kernel_diagonal(x, backend=backend)["alignment"], 1, rtol=1e-12)
    assert limit.is_kernel
    assert repr(limit).startswith("<alignment-limit of mlp")
    assert "alignment(sample, sample')" in limit.emit("limit") or "alignment" in limit.summary()
    assert "alignment kernel of mlp" in compile_report(limit, "mlp", "the text")
    with pytest.raises(UsageError, match="the alignment-limit is a kernel and not a model"):
        limit.build(input_dim=5, rank=3)


@pytest.mark.usefixtures("made_up")
def test_the_command_line_knows_it(tmp_path):
    def run(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments], catch_exceptions=False)

    told = run("compile", MLP, "--limit", "alignment", "--json")
    assert json.loads(told.stdout)["limit"] == "alignment"
    assert "[pi|nngp|ntk|alignment|halved]" in run("compile", "--help").output.replace("\n", "").replace(" ", "")
    options = ("--limit-train-size", 60, "--backend", "numpy", "--ridge", 0.01, "--json")
    found = run("regress", MLP, "--limit", "alignment", *options)
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["chosen"]["test_accuracy"] > 0.3
    refused = run("train", MLP, "--limit", "alignment")
    assert "is a kernel, which is not trained; available: pi, halved" in refused.output
    trained = run("train", MLP, "--limit", "halved", "--epochs", 1, "--limit-train-size", 64, "--rank", 8, "--out",
                  tmp_path / "r", "--no-report")  # fmt: skip
    assert trained.exit_code == 0, trained.output
    assert tpc.Model.load(next((tmp_path / "r" / "checkpoints").glob("*/model.npz"))).limit.kind == "halved"


@pytest.mark.usefixtures("made_up")
def test_a_model_that_is_added():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((8, 5)), rng.integers(0, 10, 8)
    program = tpc.load(MLP)
    models = {
        kind: tpc.compile(program, limit=kind).build(5, 4, dtype="float64", init="paper") for kind in ("pi", "halved")
    }
    for _ in range(3):
        one = models["pi"].step(x, y, lr=0.1, lr_mult={"embed": 0.5})
        other = models["halved"].step(x, y, lr=0.1)
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-12)
    after = models["halved"].state()
    for name, value in models["pi"].state().items():
        np.testing.assert_allclose(after[name], value, rtol=1e-9, atol=1e-12)
    assert run_check(program, limit="halved", widths=(64, 128, 256), seeds=2, steps=1).limit == "halved"
