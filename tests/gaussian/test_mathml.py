"""Formulas as MathML: well formed, and with what the formula says."""

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import sympy as sp

import tpc
from tpc.gaussian.explain import equation
from tpc.gaussian.kernel import kernel
from tpc.gaussian.mathml import NAMESPACE, expression, fenced, math, row, sign
from tpc.program.expression import parse_nonlinearity

FOLDER = Path(__file__).parents[2] / "programs"
PROGRAMS = sorted(FOLDER.glob("*.py"))
PAIRS = [
    ("relu", "relu"), ("relu", "step"), ("step", "step"), ("erf", "erf"), ("gelu", "gelu"), ("abs", "relu"),
    ("sin", "sin"), ("sin", "cos"), ("exp", "exp"), ("leaky_relu", "relu"), ("x**2*erf(x)", "x"), ("x**3", "x"),
    ("relu", "DiracDelta(x)"), ("sign", "erf"), ("exp(-x**2)", "x**2"), ("relu", "x*exp(x)"),
]  # fmt: skip
x, y = sp.symbols("x y", positive=True)


def well_formed(v):
    texts = [] if v.plain is None else [expression(v.plain)]
    for step in v.rules:
        texts += [row(expression(step.left), sign("="), expression(step.right)), *(expression(e) for _, e in step.law)]
        ET.fromstring(math(texts[-1], label=equation(step)))
    for text in texts:
        root = ET.fromstring(math(text, block=True))
        assert root.tag == f"{{{NAMESPACE}}}math"
        for element in root.iter():
            sizes = {"mfrac": 2, "msup": 2, "msub": 2, "munder": 2}
            assert len(element) == sizes.get(element.tag.rpartition("}")[2], len(element))
    return texts


@pytest.mark.parametrize(("phi", "psi"), PAIRS)
def test_kernels_are_well_formed(phi, psi):
    assert well_formed(kernel(parse_nonlinearity(phi), parse_nonlinearity(psi)))


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda p: p.stem)
def test_kernels_of_programs_are_well_formed(path):
    for phi, psi in tpc.compile(tpc.load(path)).graph().kernels:
        well_formed(kernel(phi, psi))


def text_of(expr):
    return "".join(ET.fromstring(expression(expr)).itertext()).replace("\u2062", "").replace("\u2061", "")


@pytest.mark.parametrize(
    ("expr", "text"),
    [
        (x - y, "x−y"),
        (-(x**2) + y, "y−x2"),
        (2 * x, "2x"),
        (sp.Rational(-1, 2), "−12"),
        (x * (y + 1), "x(y+1)"),
        (sp.asin(x) / sp.pi, "arcsin(x)π"),
        ((x + y) ** 3, "(x+y)3"),
        (sp.Abs(x - 5), "|x−5|"),
        (sp.Max(x, 3 - x), "Max(x,3−x)"),
    ],
)
def test_expressions_read_as_they_are_written(expr, text):
    assert text_of(expr) == text


def test_roots_and_fractions_have_their_elements():
    assert ET.fromstring(expression(sp.sqrt(x + 1))).tag == "msqrt"
    assert ET.fromstring(expression(1 / x)).tag == "mfrac"
    assert ET.fromstring(expression(x**3)).tag == "msup"


def test_labels_are_escaped():
    assert ET.fromstring(math("<mi>x</mi>", label='a < "b" & c')).get("alttext") == 'a < "b" & c'


def test_brackets_grow_with_what_is_high_only():
    assert 'stretchy="false"' in fenced("<mi>x</mi>")
    assert "stretchy" not in fenced(expression(1 / x))
