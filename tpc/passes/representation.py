"""The representation a network reads its logits from, as a program of its own."""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from tpc.errors import UsageError
from tpc.passes.adapt import X_SUPPORT
from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, SUPPORT, without
from tpc.program.functions import argument
from tpc.program.ir import Vector
from tpc.program.node import Node, topological
from tpc.program.program import Program

GRAM = "gram"


def representation(program: Program) -> Vector:
    """The last nonlinearity that every sample goes through on its own, before any support set is looked at.

    Where the network has positions there, so has it. Raises UsageError for a network without a nonlinearity.
    """
    found: Vector | None = None
    learned: set[Node] = set()
    for n in topological([program.tensor("logits")]):
        if getattr(n, "name", "") == X_SUPPORT or any(m in learned for m in n.operands):
            learned.add(n)
        elif isinstance(n, ir.Nonlin) and _is_of_samples(n):
            found = n
    if found is None:
        raise UsageError(f"the network {program.name} has no nonlinearity, so its representation is its input")
    return found


def with_gram(program: Program) -> Program:
    """Add the output "gram": (1/n) x·x' of the representations of every two samples, the mean over positions."""
    x = representation(program)
    other = ir.rename_vector(x, {SAMPLE: SAMPLE.primed()})
    places = without(x.axes, (SAMPLE,))
    share = tensor.elementwise(1 / argument(0), (tensor.contract(tensor.size(a) for a in places),))
    return program.with_outputs((GRAM, tensor.contract((share, ir.moment(ir.PRODUCT, (x, other))), places)))


def _is_of_samples(n: Node) -> bool:
    """Whether there is one value for every sample, or for every place of it."""
    others = without(n.axes, (SAMPLE,))
    return SAMPLE in n.axes and not any(a.base in (SAMPLE.name, SUPPORT.name) for a in others)


def unadapted(program: Program) -> Program:
    """A network with the representation of `program` and a readout of its own that has as many outputs."""
    x, f = representation(program), program.tensor("logits")
    axes, places = without(f.axes, (SAMPLE,)), without(x.axes, (SAMPLE,))
    readout = ir.VectorWeight("readout", x.space, (*places, *axes), "readout", sp.Integer(1))
    read = tensor.contract((ir.moment(ir.PRODUCT, (x, readout)),), places)
    return replace(program, outputs=(("logits", read),))
