"""Names that people bring from other libraries are told what is and is not there."""

from pathlib import Path

import pytest

import tpc
from tpc.errors import UsageError
from tpc.program.absent import absent, known
from tpc.program.expression import KINKED_ELSEWHERE, parse_nonlinearity

DOCUMENT = Path(__file__).parents[2] / "docs" / "writing_programs.md"


@pytest.mark.parametrize("name", known())
def test_every_name_is_told(name):
    what, instead = absent(name)
    assert what
    assert instead
    assert name not in tpc.__all__


@pytest.mark.parametrize("name", ["LayerNorm", "layer_norm", "MultiheadAttention", "Conv2d", "T", "BatchNorm1d"])
def test_spelling_does_not_matter(name):
    assert absent(name) is not None
    with pytest.raises(AttributeError, match=r"docs/writing_programs\.md"):
        getattr(tpc, name)


def test_what_is_there_and_what_is_unheard_of_is_not_listed():
    assert all(absent(name) is None for name in {*tpc.__all__, "frobnicate"} - {"rms_norm"})
    with pytest.raises(AttributeError, match=r"^module 'tpc' has no attribute 'frobnicate'$"):
        getattr(tpc, "frobnicate")  # noqa: B009
    assert not hasattr(tpc, "__path_of_nothing__")


def test_the_page_has_its_section():
    text = DOCUMENT.read_text(encoding="utf-8")
    assert "## Names from elsewhere" in text


@pytest.mark.parametrize(
    ("name", "same"),
    [("swish", "silu"), ("logistic", "sigmoid"), ("lrelu", "leaky_relu"), ("arctan", "atan"), ("celu", "elu"),
     ("logsigmoid", "-softplus(-x)"), ("quick_gelu", "x*sigmoid(1.702*x)"), ("arcsinh", "asinh")],
)  # fmt: skip
def test_names_for_the_same_nonlinearity(name, same):
    assert parse_nonlinearity(name) == parse_nonlinearity(same)


@pytest.mark.parametrize("name", KINKED_ELSEWHERE)
def test_kinks_elsewhere_are_the_reason(name):
    with pytest.raises(UsageError, match=f"{name} is not in this version: it has kinks away from 0") as told:
        parse_nonlinearity(name)
    parse_nonlinearity(str(told.value).split("Fix: ")[1].removesuffix(" is close and smooth"))


@pytest.mark.parametrize(("name", "meant"), [("ReLU", "relu"), ("GELU", "gelu"), ("SiLU", "silu"), ("Swish", "swish")])
def test_capitals_are_told(name, meant):
    with pytest.raises(UsageError, match=f"did you mean {meant}"):
        parse_nonlinearity(name)
