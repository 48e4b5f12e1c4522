"""The representation a network reads its logits from, as a program of its own."""

from __future__ import annotations

from dataclasses import replace

import sympy as sp

from tpc.errors import UsageError
from tpc.passes.adapt import X_SUPPORT
from tpc.program import ir
from tpc.program.axes import SAMPLE
from tpc.program.ir import Vector
from tpc.program.node import Node, topological
from tpc.program.program import Program

GRAM = "gram"


def representation(program: Program) -> Vector:
    """The last nonlinearity that every sample goes through on its own, before any support set is looked at.

    Raises UsageError for a network without a nonlinearity.
    """
    found: Vector | None = None
    learned: set[Node] = set()
    for n in topological([program.tensor("logits")]):
        if n is X_SUPPORT or any(m in learned for m in n.operands):
            learned.add(n)
        elif isinstance(n, ir.Nonlin) and n.axes == (SAMPLE,):
            found = n
    if found is None:
        raise UsageError(f"the network {program.name} has no nonlinearity, so its representation is its input")
    return found


def with_gram(program: Program) -> Program:
    """Add the output "gram": (1/n) x·x' of the representations of every two samples."""
    x = representation(program)
    other = ir.rename_vector(x, {SAMPLE: SAMPLE.primed()})
    return program.with_outputs((GRAM, ir.moment(ir.PRODUCT, (x, other))))


def unadapted(program: Program) -> Program:
    """A network with the representation of `program` and a readout of its own that has as many outputs."""
    x, f = representation(program), program.tensor("logits")
    axes = tuple(a for a in f.axes if a != SAMPLE)
    readout = ir.VectorWeight("readout", x.space, axes, "readout", sp.Integer(1))
    return replace(program, outputs=(("logits", ir.moment(ir.PRODUCT, (x, readout))),))
