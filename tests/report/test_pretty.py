"""Formulas in drawings."""

import pytest

from tpc.draw.pretty import formula, node_label


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("V[relu(x), DiracDelta(x)](1, c3, c4)", "V[relu, δ](1, c3, c4)"),
        ("V[x + relu(x), step(x)](c1, c3, c4)", "V[x + relu, step](c1, c3, c4)"),
        ("<hidden1.B, g3>", "⟨hidden1.B, g3⟩"),
        ("sum[class, readout](s14, readout.A, k4)", "Σ_class,readout s14·readout.A·k4"),
        ("mul(-1/2, s6, y)", "-1/2·s6·y"),
        ("add(c1, 1/100000)", "c1 + 1/100000"),
        ("map(exp(u0 - u1); s4, s7)", "exp(s4 - s7)"),
        ("map(u10 + u1; a, b, c, d, e, f, g, h, i, j, k)", "k + b"),
        ("logsumexp[class](s4)", "logsumexp[class](s4)"),
    ],
)
def test_formula(line, shown):
    assert formula(line) == shown


def test_labels_use_the_own_equation_and_the_output_name():
    data = {"label": "logits", "kind": "output", "equation": "s4 = mul(1/2, s3)\nwhere a = b"}
    assert node_label(data, "s4") == "logits = 1/2·s3"
    assert node_label({"label": "hidden1.A", "kind": "state", "equation": "hidden1.A = state"}, "x") == "hidden1.A"
    assert node_label({}, "g1") == "g1"
