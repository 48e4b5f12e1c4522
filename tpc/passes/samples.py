"""Samples are answered one by one: a network in which they meet is refused unless it says that they may.

Adaptation (`tpc.adapt`) is left out here: there a sample meets the support of its task, along an axis of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from tpc.errors import ProgramError
from tpc.program.axes import SAMPLE
from tpc.program.node import Node, topological
from tpc.program.program import Program
from tpc.program.verify import verify

Network = TypeVar("Network", bound=Callable[..., Any])


def joins_samples(network: Network) -> Network:
    """Declare, as a decorator of a network, that the output of a sample may depend on the others of its batch.

    Without it a sum, a softmax or a count along the axis "sample" is refused, for predictions then change with the
    batch that they are made in. A network that says so is predicted in one batch, whatever its size; kernel limits,
    which are functions of two samples, do not exist for it.
    """
    network.joins_samples = True  # type: ignore[attr-defined]
    return network


def admitted(program: Program) -> Program:
    """A network as it was traced or read. Raises ProgramError where samples meet undeclared."""
    verify(program, "tracing")
    if not program.joins_samples:
        refuse_joined(
            program,
            "and predictions would change with the batch they are made in",
            "; where it is meant, put @tpc.joins_samples over the network",
        )
    return program


def refuse_joined(program: Program, reason: str, declared: str = "") -> None:
    """Raise ProgramError, at the user's line, where one sample's output depends on others."""
    for n in topological([program.tensor("logits")]):
        if joined(n):
            raise ProgramError(
                f"one sample's output depends on other samples here, {reason}",
                program.where(n) or program.where(program["logits"]),
                "replace the sum over samples, for example by tpc.rms_norm, which averages over neurons" + declared,
            )


def joined(n: Node) -> bool:
    """Whether samples meet in an instruction: along their axis, or by their number."""
    others = any(a.base == SAMPLE.name and a != SAMPLE for a in n.mentions)
    return others or SAMPLE in n.joins or SAMPLE in n.counts
