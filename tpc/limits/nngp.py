"""The NNGP limit: the covariance of a network's output at two samples, over its random initialization.

Weights are N(0, σ²/fan-in), biases N(0, σ²), each layer with its own σ (Lee et al. 2018; Yang, Tensor Programs I). The
output is a sum of readouts and their biases with coefficients that are not random, so it becomes a Gaussian process
with covariance Σ c c' σ² E Z^x Z^x', E Z^x Z^x' by the rules of `tpc.limits.second_moments`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tpc.errors import ProgramError
from tpc.limits.graph import DIAGONAL, LimitGraph
from tpc.limits.second_moments import SecondMoments, second_sample, second_vector, variance_of_entries
from tpc.limits.views import contracted, renamed_factors
from tpc.passes.per_sample import OUTPUT, Randomness
from tpc.program import ir, tensor
from tpc.program.axes import SAMPLE, Axes, apart, union, without
from tpc.program.ir import Vector
from tpc.program.node import Node, topological
from tpc.program.program import Program
from tpc.program.rewrite import Recursion
from tpc.program.tensor import ONE, ZERO, Tensor

NNGP, NTK = "nngp", "ntk"


def nngp_limit(program: Program) -> LimitGraph:
    """The limit of a program of `single_output`: outputs "nngp" (sample, sample') and "nngp.diagonal" (sample,).

    Raises ProgramError where the output is not linear in readouts.
    """
    moments = SecondMoments(program)
    return graph_of(program, NNGP, dict(covariances(moments)), moments)


def graph_of(program: Program, limit: str, outputs: dict[str, Tensor], moments: SecondMoments) -> LimitGraph:
    """The graph of kernels by name; raises ProgramError for an output that does not depend on the weights."""
    if ZERO in outputs.values():
        raise ProgramError(
            f"the {limit}-limit is zero: the output does not depend on any weight at initialization",
            program.where(program[OUTPUT]),
            "check the weight_std of the layers and the numbers that multiply them",
        )
    return LimitGraph(program.name, limit, tuple(outputs.items()), (), (), moments.sources)


def covariances(moments: SecondMoments) -> Iterator[tuple[str, Tensor]]:
    """The output's covariance at two samples and its variance at one."""
    program = moments.program
    parts = OutputParts(program).parts(program.tensor(OUTPUT))
    for name, other in ((NNGP, True), (NNGP + DIAGONAL, False)):
        total = []
        for p in parts:
            for q in parts:
                if q.weight is p.weight:
                    total.append(_covariance(moments, p, q, other))
        yield name, tensor.broadcast(tensor.add(total), _axes(program, other))


def _axes(program: Program, other: bool) -> Axes:
    axes = program.tensor(OUTPUT).axes
    return (*axes, *(a.primed() for a in axes)) if other else axes


@dataclass(frozen=True)
class OutputPart:
    """Σ_over coefficient · (readout of x), or coefficient · bias where x is None."""

    coefficient: Tensor
    weight: ir.VectorWeight | tensor.Weight
    x: Vector | None
    over: Axes


def _covariance(moments: SecondMoments, p: OutputPart, q: OutputPart, other: bool) -> Tensor:
    c, d, x, y, over = moments.tensor(p.coefficient), moments.tensor(q.coefficient), p.x, q.x, q.over
    own = without(p.weight.axes, (SAMPLE,))  # independent components: those of both samples are the same
    if other:
        d, over = second_sample(d, own), tuple(a if a in own else a.primed() for a in over)
        y = y and second_vector(y, own)
    else:
        taken = without(union(p.over, c.axes, x.axes if x else ()), own)
        new = apart(over, taken, union(d.axes, y.axes if y else ()))
        d, over = renamed_factors(d, new), tuple(new.get(a, a) for a in over)
        y = y and ir.rename_vector(y, new)
    inside = (moments.second(x, y),) if x is not None and y is not None else ()
    return contracted((variance_of_entries(p.weight), c, d, *inside), union(p.over, over))


class OutputParts:
    """Takes an output apart into readouts and biases, to which it must be linear."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._is_random = Randomness()
        self._known: dict[Tensor, list[OutputPart]] = {}
        self._recall = Recursion()
        for n in topological([program[OUTPUT]]):
            self._check_hidden(n)

    def _check_hidden(self, n: Node) -> None:
        """Nothing random may enter a hidden vector."""
        scalars: tuple[Tensor, ...] = ()
        if isinstance(n, ir.LinComb):
            scalars = tuple(c for c, _, _ in n.terms)
        elif isinstance(n, ir.Nonlin | ir.Moment):
            scalars = n.thetas
        if any(self._is_random(s) for s in scalars):
            raise ProgramError(
                "an output of the network, or its bias, multiplies a hidden vector; at initialization it is random "
                "at any width, so that no kernel describes the network",
                self._program.where(n),
                "multiply by a tpc.moment, which is not random in the limit",
            )

    def parts(self, n: Tensor) -> list[OutputPart]:
        """The summands of a random scalar."""
        return self._recall(self._known, n, self._parts)

    def _parts(self, n: Tensor) -> list[OutputPart]:
        if not self._is_random(n):
            raise self._error(n, "the output has a part that is not random at initialization, so its mean is not zero")
        match n:
            case tensor.Weight():
                return [OutputPart(ONE, n, None, ())]
            case ir.Moment():
                return [self._readout(n)]
            case tensor.Add():
                return [p for t in n.terms for p in self.parts(t)]
            case tensor.Broadcast() | tensor.StopGradient():
                return self.parts(n.arg)
            case tensor.Contract():
                return self._product(n)
        raise self._error(n, "the output is not a linear function of readouts")

    def _product(self, n: tensor.Contract) -> list[OutputPart]:
        (*others, last) = sorted(n.factors, key=lambda f: self._is_random(f))
        if any(self._is_random(f) for f in others):
            raise self._error(n, "the output multiplies two random numbers")
        made = []
        for p in self.parts(last):
            if set(p.over) & set(union(n.over, *(f.axes for f in others))):
                raise self._error(n, "the output sums over one axis twice")
            made.append(OutputPart(tensor.contract((*others, p.coefficient)), p.weight, p.x, (*n.over, *p.over)))
        return made

    def _readout(self, n: ir.Moment) -> OutputPart:
        weights = [x for x in n.xs if isinstance(x, ir.VectorWeight) and x.role == "readout"]
        rest = [x for x in n.xs if x not in weights]
        if n.fn != ir.PRODUCT or len(weights) != 1 or len(rest) != 1:
            raise self._error(n, "the output is not a linear function of readouts")
        return OutputPart(ONE, weights[0], rest[0], ())

    def _error(self, n: Node, message: str) -> ProgramError:
        return ProgramError(
            f"{message}: a kernel limit needs a sum of readouts and their biases, each times numbers, data or moments",
            self._program.where(n) or self._program.where(self._program[OUTPUT]),
            "take the kernel limit of the network without it",
        )
