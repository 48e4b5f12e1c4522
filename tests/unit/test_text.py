"""Listings: parsing gives the identical object back, and says which line it cannot read."""

import json
from itertools import pairwise

import numpy as np
import pytest
import sympy as sp
from hypothesis import given, settings
from hypothesis import strategies as st

import tpc
from tests.support.generators import networks, traced
from tpc.errors import DataError, ProgramError
from tpc.limits.kinds import LIMITS
from tpc.passes.loss import attach_loss
from tpc.program import ir, tensor
from tpc.program.axes import Axis, Space
from tpc.program.functions import argument
from tpc.program.program import Program
from tpc.program.text import listing, parse

SETTINGS = {
    "mlp": [{}, {"hidden": 1, "classes": 2}, {"hidden": 4, "input_scale": 0.3, "bias_scale": 0.0}],
    "resmlp": [{}, {"blocks": 0}, {"blocks": 3, "branch_scale": 0.1, "eps": 1e-3}],
}


def stages(program, loss="cross_entropy"):
    """The program after every pass, by name."""
    found = {"traced": program, "loss": attach_loss(program, loss)}
    for name, run in LIMITS["pi"].recipe().passes:
        found[name] = run(list(found.values())[-1])
    return found


def assert_identical(program):
    text = listing(program)
    again = parse(text)
    assert again.name == program.name
    assert [n for n, _ in again.outputs] == [n for n, _ in program.outputs]
    for (_, a), (_, b) in zip(again.outputs, program.outputs):
        assert a is b
    assert listing(again) == text


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
@pytest.mark.parametrize(("name", "options"), [(n, o) for n, all_of in SETTINGS.items() for o in all_of])
def test_every_stage_of_the_programs_reads_back(programs_dir, name, options, loss):
    for stage in stages(tpc.load(programs_dir / f"{name}.py", **options), loss).values():
        assert_identical(stage)


def test_stages_add_outputs_and_keep_the_earlier_ones(programs_dir):
    found = stages(tpc.load(programs_dir / "mlp.py", hidden=2))
    assert [n for n, _ in found["norms"].outputs] == [
        "logits",
        "loss",
        *(
            f"{kind}:{w}"
            for kind in ("grad", "norm2")
            for w in ("embed", "embed.bias", "hidden1", "hidden1.bias", "readout", "readout.bias")
        ),
    ]
    for before, after in pairwise(found.values()):
        assert {n for n, _ in before.outputs} <= {n for n, _ in after.outputs}


@settings(max_examples=40)
@given(networks())
def test_random_programs_read_back(source):
    for stage in stages(traced(source)).values():
        assert_identical(stage)


def test_every_operation_reads_back():
    """A program with nodes that no network above has."""
    i, j = Axis("i", 2), Axis("j")
    space, other = Space("s"), Space("other")
    x = tensor.Input("x", (i, j))
    c = tensor.Weight("c", (i,), sp.Rational(1, 3))
    g = ir.VectorWeight("g", space, (j,), "input", sp.sqrt(2))
    w = ir.MatrixWeight("w", other, space, sp.Integer(1))
    u = argument(0)
    parts = tensor.Add(
        (
            tensor.Size(j),
            tensor.LogSumExp(x, i),
            tensor.Map(sp.exp(-(u**2)) * sp.erf(u / 3) + sp.pi, (tensor.Rename(x, ((j, j.primed()),)),)),
            tensor.Broadcast(c, (j,)),
            ir.Moment(u * argument(1) * ir.theta(0), (g, ir.RenameVector(g, ((j, j.primed()),))), (c,)),
            tensor.Constant(sp.Rational(-2, 7)),
            tensor.Contract((x, c, tensor.Constant(sp.sqrt(3))), (i, j)),
        )
    )
    y = ir.MatMul(w, ir.Nonlin(sp.tanh(u) * ir.theta(0), (g,), (c,)))
    back = ir.MatMul(ir.Transpose(w), ir.Project(y))
    m = ir.MatrixSum((ir.Outer(y, g, (i, j)), ir.Outer(ir.Project(y), g, (i, j))))
    total = ir.LinComb(((x, back, (i,)), (tensor.ONE, g, ())))
    assert_identical(Program("all", (("s", parts), ("v", total), ("m", m))))


def small(x):
    h = tpc.rms_norm(tpc.dense(x, "embed"))
    h = h + tpc.dense(tpc.relu(h), "hidden1")
    return tpc.readout(tpc.relu(h), 3)


PIECES = ["", "(", ")", ",", ";", "[", "]", "x1", "0", " ", "\n"]
SMALL = stages(tpc.trace(small))["norms"]


def test_a_node_may_carry_the_name_that_a_counter_would_give():
    def network(x):
        return tpc.readout(tpc.relu(tpc.dense(tpc.relu(tpc.dense(x, "h1")), "x1")), 3)

    assert_identical(tpc.trace(network))


def test_listing_of_a_small_network():
    def tiny(x):
        h = tpc.dense(x, "embed") + 0.5 * tpc.bias("embed")
        return tpc.readout(tpc.relu(h), 3)

    assert listing(tpc.trace(tiny)) == (
        "program tiny\n"
        "axis sample\n"
        "axis feature\n"
        "axis class = 3\n"
        "x : scalar[sample, feature] = data\n"
        "embed : G embed[feature] = weight(input, std 1)\n"
        "h1 : G embed[sample] = lincomb(sum[feature] x * embed)\n"
        "embed.bias : G embed[] = weight(input, std 0)\n"
        "h2 : G embed[sample] = lincomb(1 * h1, 1/2 * embed.bias)\n"
        "x1 : X embed[sample] = nonlin(relu(u0); h2)\n"
        "readout : X embed[class] = weight(readout, std 1)\n"
        "s1 : scalar[sample, class] = moment(u0*u1; x1, readout)\n"
        "output logits = s1\n"
    )


GOOD = """\
program p
axis sample
axis class = 3

# a comment
x : scalar[sample] = data
g : G a[] = weight(input, std 1)
w : matrix b <- a = weight(std 1)
h : G b[] = matmul(w, g)
s : scalar[] = moment(u0**2; h)
t : scalar[sample] = mul(2, s, x)
output logits = t
"""


def test_comments_and_blank_lines_are_skipped():
    assert_identical(parse(GOOD))


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("mul(2, s, x)", "mul(2, q, x)", 11, "'q' is used before it is defined"),
        ("mul(2, s, x)", "multiply(2, s, x)", 11, "unknown operation 'multiply'; expected one of add, broadcast"),
        ("mul(2, s, x)", "mul(2, h, x)", 11, "expected a scalar, 'h' is a G b[]"),
        ("matmul(w, g)", "matmul(g, g)", 9, "expected a matrix, 'g' is a G a[]"),
        ("matmul(w, g)", "matmul(w, x)", 9, "expected a vector, 'x' is a scalar[sample]"),
        ("matmul(w, g)", "matmul(w)", 9, "expected 2 arguments, got 1"),
        ("t : scalar[sample]", "t : scalar[]", 11, "expected the type scalar[sample], got scalar[]"),
        ("h : G b[]", "h : X b[]", 9, "expected the type G b[], got X b[]"),
        ("x : scalar[sample]", "x : scalar[row]", 6, "the axis 'row' is not declared"),
        ("x : scalar[sample]", "x : G a[]", 6, "data is a scalar[…]"),
        ("w : matrix b <- a", "w : matrix b", 8, "expected the type scalar[…]"),
        ("std 1)\nh", "std q)\nh", 8, "unknown name 'q'"),
        ("moment(u0**2; h)", "moment(u0**2)", 10, "expected `expression; arguments`"),
        ("moment(u0**2; h)", "moment(u1**2; h)", 10, "unknown name 'u1'"),
        ("moment(u0**2; h)", "moment(__import__('os'); h)", 10, "got"),
        ("t : scalar[sample] =", "t scalar[sample]", 11, "expected `name : type = operation(…)`"),
        ("mul(2, s, x)", "rename[sample](x)", 11, "expected rename[old->new, …]"),
        ("matmul(w, g)", "lincomb(2 g)", 9, "expected `[sum[axes] ]coefficient * vector`, got '2 g'"),
        ("matmul(w, g)", "lincomb()", 9, "lincomb expects arguments"),
        ("moment(u0**2; h)", "moment(1; )", 10, "expected `expression; arguments`"),
        ("output logits = t", "output logits = nothing", 12, "'nothing' is used before it is defined"),
        ("output logits = t\n", "", 11, "ends with `output NAME = …`"),
        ("program p", "# program p", 12, "starts with `program NAME`"),
        ("(input, std 1)", "(other, std 1)", 7, "expected the role input or readout, got 'other'"),
    ],
)
def test_a_damaged_listing_is_told_with_its_line(old, new, line, message):
    assert GOOD.count(old) == 1
    with pytest.raises(ProgramError) as e:
        parse(GOOD.replace(old, new), "saved.txt")
    assert message in str(e.value)
    assert e.value.where.line == line
    assert str(e.value).startswith(f"saved.txt:{line}: ")


@settings(max_examples=300)
@given(st.data())
def test_no_damage_escapes_the_parser(data):
    """Characters removed, doubled or replaced anywhere: a program, or an error that names a line."""
    text = list(listing(SMALL))
    for _ in range(data.draw(st.integers(1, 4))):
        k = data.draw(st.integers(0, len(text) - 1))
        text[k : k + data.draw(st.integers(0, 6))] = data.draw(st.sampled_from(PIECES))
    line = 1
    try:
        parse("".join(text))
    except ProgramError as e:
        line = e.where.line
    assert line >= 1


@pytest.mark.parametrize("text", ["", "\n\n", "program p\n", "\x00", "output x = 1\n"])
def test_text_that_is_no_listing(text):
    with pytest.raises(ProgramError, match="expected"):
        parse(text)


# --- names, which become part of generated code ----------------------------------------------------------------------

COMMENT = "x*/void/**/p(void){}/*"
DOCSTRING = 'x""";f();"""'
SUBSCRIPT = 'e"]if(f())else(state)["e'
HOSTILE = [COMMENT, DOCSTRING, "a/b", "a\\b", "a'b", 'a"b', "a;b", "a{b", "a$b", "a`b", "a*b"]
PLACES = [
    ("program p", "program {}", 1, "program"), ("axis sample", "axis {}", 2, "axis"), ("x : ", "{} : ", 6, "node"),
    ("g : ", "{} : ", 7, "node"), ("w : ", "{} : ", 8, "node"), ("h : ", "{} : ", 9, "node"),
    ("G a[] = weight", "G {}[] = weight", 7, "space"), ("matrix b <-", "matrix {} <-", 8, "space"),
    ("<- a = weight", "<- {} = weight", 8, "space"), ("output logits", "output {}", 12, "output"),
]  # fmt: skip
CASES = [(name, *place) for name in HOSTILE for place in PLACES]
CASES += [(name, "g : ", "{} : ", 7, "node") for name in (SUBSCRIPT, "a..b", ".a", "a.", "a:b", "<a>")]
CASES += [(name, "output logits", "output {}", 12, "output") for name in (SUBSCRIPT, "a:b:c", ":a", "a:")]


@pytest.mark.parametrize(("name", "old", "new", "line", "kind"), CASES)
def test_names_that_no_network_has_are_refused(name, old, new, line, kind):
    assert GOOD.count(old) == 1
    with pytest.raises(ProgramError) as e:
        parse(GOOD.replace(old, new.format(name)))
    assert f"expected letters, digits and _ in the name of the {kind}, got {name!r}" in str(e.value)
    assert e.value.where.line == line


def test_names_that_networks_have_are_read():
    def größe_2(x):
        h = tpc.dense(x, "9") + tpc.bias("9")
        h = tpc.dense(tpc.relu(h), "_w2", space="Raum_1")
        return tpc.readout(tpc.relu(h), 3, "läst") + tpc.bias("läst")

    for stage in stages(tpc.trace(größe_2)).values():
        assert_identical(stage)
    assert_identical(tpc.trace(lambda x: tpc.readout(tpc.dense(x, "e"), 2)))  # <lambda>


@pytest.mark.parametrize("backend", ["numpy", "native"])
@pytest.mark.parametrize("name", [COMMENT, DOCSTRING])
def test_a_saved_model_runs_no_code_of_its_own(tmp_path, name, backend):
    tpc.compile(tpc.trace(small)).build(2, 3).save(tmp_path / "m.npz")
    with np.load(tmp_path / "m.npz") as file:
        arrays = dict(file)
    meta = json.loads(arrays["meta"].tobytes())
    meta["program"] = meta["program"].replace("program small", f"program {name}")
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    np.savez(tmp_path / "m.npz", **arrays)
    with pytest.raises(DataError, match="in the name of the program"):
        tpc.Model.load(tmp_path / "m.npz", backend=backend)
