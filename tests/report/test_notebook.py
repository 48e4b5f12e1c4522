"""Limits, models, programs and kernels are readable where Python shows them."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest

import tpc

PROGRAM = Path(__file__).parents[2] / "programs" / "mlp.py"


@pytest.fixture(scope="module")
def limit():
    return tpc.compile(tpc.load(PROGRAM, hidden=2, classes=3))


def test_reprs_are_short_and_say_what_it_is(limit):
    fresh = tpc.compile(limit.program)
    assert repr(fresh) == "<π-limit of mlp, over the spaces embed, hidden1>"
    fresh.graph()
    assert repr(fresh).endswith("kernels V[relu, relu], V[relu, δ], V[step, step]>")
    assert repr(limit.program).startswith("<program mlp: 19 lines, weights embed, embed.bias, hidden1")
    assert repr(limit.kernels["V[step, step]"]).startswith("<V[step, step](p, q, c) = ")
    assert repr(limit.kernels).startswith("<3 kernels: V[relu, relu]")


def test_the_repr_of_a_model_counts_its_atoms(limit):
    model = limit.build(input_dim=5, rank=7, dtype="float64")
    before = model.atoms["hidden1"]
    model.step(np.ones((4, 5)), [0, 1, 2, 0], lr=0.1)
    told = "rank 7, 5 inputs, 3 outputs, numpy, float64, exact"
    atoms = f"{before + 4} atoms of hidden1, {before + 4} atoms of readout"
    assert repr(model) == f"<Model: π-limit of mlp: {told}, {atoms}>"


@pytest.mark.parametrize("mode", ["exact", "folded"])
def test_the_table_of_a_model_is_its_state(limit, mode):
    model = limit.build(input_dim=5, rank=7, mode=mode)
    state = model.state()
    arrays = {name: (shape, kind) for name, shape, kind in model.arrays()}
    assert set(arrays) <= set(state)
    assert set(arrays) == set(state) or mode == "folded"
    for name, (shape, kind) in arrays.items():
        assert state[name].shape == shape, name
        assert kind in ("float32", "float64")
    html = model._repr_html_()
    ET.fromstring(html)
    assert "<td" in html
    assert "hidden1.A" in html


def test_a_limit_draws_itself(limit):
    html = limit._repr_html_()
    ET.fromstring(html)
    assert "<svg" in html
    assert "V[relu, δ](p, q, c)" in html
    assert "kernel evaluations" in html
    assert "<pre>program mlp" in limit.program._repr_html_()


def test_a_limit_that_does_not_exist_says_so():
    def jump(x):
        return tpc.readout(tpc.step(tpc.dense(x, name="embed")), 2, name="readout")

    limit = tpc.compile(tpc.trace(jump), limit="ntk")
    assert "does not exist" in limit._repr_html_()
    assert repr(limit).startswith("<ntk-limit of jump")
