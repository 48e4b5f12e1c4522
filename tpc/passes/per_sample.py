"""One output of a network, with a copy of the weights for every sample, and its gradients.

At initialization the outputs of a network are independent and alike, so kernels are those of one of them. Weights
that carry the sample axis have gradients that are not summed over samples: pairs of them make the tangent kernel.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TypeGuard

from tpc.errors import ProgramError
from tpc.passes.adapt import is_adapted
from tpc.passes.backward import differentiate, lines_of
from tpc.passes.project import PREFIX, outers
from tpc.passes.samples import refuse_joined
from tpc.passes.substitute import Substitution
from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, Axes, Axis, union, without
from tpc.program.ir import Matrix
from tpc.program.node import Node
from tpc.program.program import AnyWeight, Program
from tpc.program.rewrite import Recursion
from tpc.program.tensor import Tensor

OUTPUT = "output"


def single_output(program: Program) -> Program:
    """The program with the one output "output" (sample,) in place of its logits.

    Raises ProgramError, at the user's line, for a network that is adapted to a support set, that lets samples depend
    on each other, that mixes its outputs, or that applies both W and Wᵀ.
    """
    if is_adapted(program):
        raise ProgramError(
            "kernel limits are those of a network before adaptation, and this one adapts to a support set",
            program.where(program["logits"]),
            "take the kernel limit of the network without tpc.adapt; its kernel regression on the support set is the "
            "adaptation of the limit",
        )
    _check(program)
    classes = _classes(program)
    leaves: dict[Node, Node | None] = {w: _copy(w, classes) for w in program.weights}
    image = Substitution(leaves)
    output = tensor.broadcast(image.tensor(program.tensor("logits")), (SAMPLE,))
    sources = {m: line for n, line in program.sources.items() if (m := image.known(n)) is not None}
    return Program(program.name, ((OUTPUT, output),), {**program.sources, **sources}, program.joins_samples)


def gradients(program: Program) -> Program:
    """Add the outputs "grad:<weight>": gradients of the output of `single_output`, sample by sample."""
    origins: list[tuple[Node, Node]] = []
    found = differentiate(program.tensor(OUTPUT), program.weights, origins)
    made = program.with_outputs(*((f"{PREFIX}{w.name}", found[w]) for w in program.weights if w in found))
    return replace(made, sources={**program.sources, **lines_of(program, origins)})


def sampled_outers(grad: Matrix) -> Iterator[tuple[ir.Vector, ir.Vector, Axes]]:
    """A matrix gradient as (y, x, over): one sample's is (1/n) Σ y xᵀ over all axes but the samples."""
    for o in outers(grad):
        yield o.y, o.x, without(o.over, (SAMPLE,))


def _copy(w: AnyWeight, classes: Axes) -> AnyWeight:
    return w if isinstance(w, ir.MatrixWeight) else replace(w, shape=(*without(w.shape, classes), SAMPLE))


def _classes(program: Program) -> Axes:
    """The axes of outputs: of readouts and their biases, but for positions, which hidden vectors have too."""
    found: dict[Axis, None] = {}
    for w in program.weights:
        if isinstance(w, tensor.Weight) or _is_readout(w):
            found.update(dict.fromkeys(w.shape))
    read = [x for n in program.nodes if isinstance(n, ir.Moment) and any(map(_is_readout, n.xs)) for x in n.xs]
    return without(found, union(*(x.axes for x in read if not _is_readout(x))))


def _is_readout(w: Node) -> TypeGuard[ir.VectorWeight]:
    return isinstance(w, ir.VectorWeight) and w.role == "readout"


def _check(program: Program) -> None:
    classes = set(_classes(program))
    refuse_joined(program, "and a kernel is a function of two samples")
    for n in program.nodes:
        if set(n.joins) & classes:
            raise ProgramError(
                "outputs are mixed here, so they are not independent copies of one another, and no kernel describes "
                "them",
                program.where(n),
                "take the kernel limit of the network without it",
            )
        if isinstance(n, ir.Transpose):
            raise ProgramError(
                "a layer is applied backwards here; kernel limits treat W and Wᵀ as independent, which only holds "
                "between a network and its gradient",
                program.where(n),
            )


class Randomness:
    """Which scalars of `single_output` are random at initialization: outputs, their biases, what is made of them."""

    def __init__(self) -> None:
        self._known: dict[Tensor, bool] = {}
        self._recall = Recursion()

    def __call__(self, n: Tensor) -> bool:
        return self._recall(self._known, n, self._is_random)

    def _is_random(self, n: Tensor) -> bool:
        if isinstance(n, ir.Moment):
            return any(isinstance(x, ir.VectorWeight) and x.role == "readout" for x in n.xs)
        return isinstance(n, tensor.Weight) or any(self(m) for m in n.operands if isinstance(m, Tensor))
