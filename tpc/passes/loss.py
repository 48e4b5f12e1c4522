"""Attach a loss to a network."""

from __future__ import annotations

import sympy as sp

from tpc.errors import UsageError
from tpc.program.axes import SAMPLE, SUPPORT, Axis, without
from tpc.program.functions import argument
from tpc.program.program import Program
from tpc.program.tensor import Constant, Input, LogSumExp, Size, Tensor, add, contract, elementwise

LOSSES = ("cross_entropy", "mse")
_MINUS = Constant(sp.Integer(-1))
SHARE = Input("share", (SAMPLE,))


def attach_loss(program: Program, loss: str) -> Program:
    """Add the output "loss": a function of the logits and of targets y with the same axes.

    cross_entropy: mean over samples of -Σ_c y_c log softmax(f)_c;
    mse: mean over samples and classes of (f - y)².
    Where the program tells each sample's share of the loss, as adapted ones do, the mean is that weighted sum.
    """
    f = program.tensor("logits")
    (classes,) = without(f.axes, (SAMPLE,))
    y = Input("y", (SAMPLE, classes))
    if any(SUPPORT in n.axes for n in program.inputs):
        share: Tensor = SHARE
    else:
        share = elementwise(1 / argument(0), (Size(SAMPLE),))
    return program.with_outputs(("loss", contract((share, per_sample(f, y, classes, loss)), (SAMPLE,))))


def per_sample(f: Tensor, y: Tensor, classes: Axis, loss: str) -> Tensor:
    """The loss of every sample with logits f and targets y. Raises UsageError for an unknown loss."""
    if loss == "cross_entropy":
        return contract((y, add((LogSumExp(f, classes), contract((_MINUS, f))))), (classes,))
    if loss == "mse":
        mean = elementwise(1 / argument(0), (Size(classes),))
        return contract((mean, elementwise(argument(0) ** 2, (add((f, contract((_MINUS, y)))),))), (classes,))
    raise UsageError(f"expected a loss among {', '.join(LOSSES)}, got {loss!r}")
