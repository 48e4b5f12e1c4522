"""Attach a loss to a network."""

from __future__ import annotations

import sympy as sp

from tpc.errors import UsageError
from tpc.program.axes import without
from tpc.program.functions import argument
from tpc.program.nn import SAMPLE
from tpc.program.program import Program
from tpc.program.tensor import Constant, Input, LogSumExp, Size, Tensor, add, contract, elementwise

LOSSES = ("cross_entropy", "mse")
_MINUS = Constant(sp.Integer(-1))


def attach_loss(program: Program, loss: str) -> Program:
    """Add the output "loss": a function of the logits and of targets y with the same axes.

    cross_entropy: mean over samples of -Σ_c y_c log softmax(f)_c;
    mse: mean over samples and classes of (f - y)².
    """
    f = program.tensor("logits")
    (classes,) = without(f.axes, (SAMPLE,))
    y = Input("y", (SAMPLE, classes))
    per_sample: Tensor
    over = [SAMPLE]
    if loss == "cross_entropy":
        log_loss = add((LogSumExp(f, classes), contract((_MINUS, f))))
        per_sample = contract((y, log_loss), (classes,))
    elif loss == "mse":
        per_sample = elementwise(argument(0) ** 2, (add((f, contract((_MINUS, y)))),))
        over.append(classes)
    else:
        raise UsageError(f"expected a loss among {', '.join(LOSSES)}, got {loss!r}")
    mean = [elementwise(1 / argument(0), (Size(axis),)) for axis in over]
    return program.with_outputs(("loss", contract((*mean, per_sample), over)))
