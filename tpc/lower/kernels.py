"""A kernel limit as three functions: what depends on one sample, on two, and the kernels' diagonals.

With `points` known for all samples, entries of a kernel are arithmetic on pairs of them after one matrix product of
the data, so that any block of a kernel can be computed by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tpc.errors import InternalError
from tpc.limits.graph import DIAGONAL, LimitGraph
from tpc.lower.instructions import Function, Lowered
from tpc.lower.lowered import through, until
from tpc.lower.sweep import Sweeper
from tpc.program import tensor
from tpc.program.axes import FEATURE, SAMPLE, Axes, Axis
from tpc.program.node import topological
from tpc.program.rewrite import Rewriter
from tpc.program.tensor import Constant, Input, Tensor

OTHER = SAMPLE.primed()
KERNELS = "kernels"


@dataclass(frozen=True)
class LoweredKernels:
    """Functions of a kernel limit, ready to print.

    `points` takes x and gives named numbers of every sample (or of none), `diagonal` the kernels at equal samples.
    `pairs` takes, in the order of `first` and `second`, what these name of either sample: "x" or an output of
    `points`; its inputs for the second sample are along primed axes. `cut` maps tensors of two samples to what
    `pairs` has in their place.
    """

    graph: LimitGraph
    points: Function
    diagonal: Function
    pairs: Function
    first: tuple[str, ...]
    second: tuple[str, ...]
    cut: Mapping[Tensor, Tensor] = field(default_factory=dict, compare=False, repr=False)

    @property
    def functions(self) -> tuple[Function, ...]:
        return self.points, self.diagonal, self.pairs


def collect_kernels(graph: LimitGraph) -> Lowered:
    """The start of lowering: the kernels and their diagonals as one function of two samples."""
    return Lowered(graph, (Function(KERNELS, (), (), graph.outputs),))


def lower_kernels(graph: LimitGraph, only: Iterable[str] = ()) -> LoweredKernels:
    """Schedule the kernels of a graph, or those named in `only`."""
    names = tuple(only) or tuple(name for name, _ in graph.outputs if not name.endswith(DIAGONAL))
    swept = Sweeper()
    planned = through(until("plan"), collect_kernels(graph)).function(KERNELS).outputs
    images = {name: swept(value) for name, value in planned}
    split = _Split()
    pairs = {name: split(images[name]) for name in names}
    steps = [n for n in topological(pairs.values()) if isinstance(n, Tensor) and not _is_leaf(n)]
    inputs = (*split.first.values(), *split.second.values())
    data = tuple(n for n in graph.nodes if isinstance(n, Input)) or (Input("x", (SAMPLE, FEATURE)),)
    points = {split.names[t]: t for t in split.names if not isinstance(t, Input)}
    return LoweredKernels(
        graph,
        _function("points", points, data),
        _function("diagonal", {name: images[name + DIAGONAL] for name in names}, data),
        Function("pairs", inputs, tuple(steps), tuple(pairs.items())),
        tuple(split.names[t] for t in split.first),
        tuple(split.names[t] for t, _ in split.second),
        split.known,
    )


def _is_leaf(n: Tensor) -> bool:
    return isinstance(n, Constant | Input)


def _function(name: str, outputs: dict[str, Tensor], data: tuple[Input, ...]) -> Function:
    order = [n for n in topological(outputs.values()) if isinstance(n, Tensor)]
    return Function(name, data, tuple(n for n in order if not _is_leaf(n)), tuple(outputs.items()))


class _Split(Rewriter[Tensor]):
    """Cuts tensors of two samples where they depend on one of them; those parts become inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.names: dict[Tensor, str] = {}
        self.first: dict[Tensor, Input] = {}
        self.second: dict[tuple[Tensor, Axes], Input] = {}
        self._computed = 0

    def rule(self, n: Tensor) -> Tensor:
        if isinstance(n, Constant):
            return n
        if OTHER not in n.axes:
            return self.first.setdefault(n, Input(self._name(n), n.axes))
        if SAMPLE not in n.axes:
            one = _of_first(n)
            return self.second.setdefault((one, n.axes), Input(f"{self._name(one)}_", n.axes))
        return self.rebuilt(n)

    def _name(self, n: Tensor) -> str:
        if n not in self.names:
            self._computed += not isinstance(n, Input)
            self.names[n] = n.name if isinstance(n, Input) else f"p{self._computed}"
        return self.names[n]


class _First(Rewriter[Tensor]):
    """What depends on the second sample alone, of the first; `names` are those of the first for its axes."""

    def __init__(self, names: Mapping[Axis, Axis]) -> None:
        super().__init__()
        self._names = dict(names)

    def rule(self, n: Tensor) -> Tensor:
        if isinstance(n, tensor.Rename):
            return tensor.rename(n, self._names)
        if isinstance(n, tensor.Contract):
            over = tuple(self._names.get(a, a) for a in n.over)
            return tensor.Contract(tuple(self(f) for f in n.factors), over)
        if isinstance(n, Input):
            raise InternalError(f"{n!r} is data of the first sample")
        return self.rebuilt(n)


def _of_first(n: Tensor) -> Tensor:
    return _First({a: Axis(a.name.removesuffix("'"), a.size, a.role) for a in _scope(n)})(n)


def _scope(n: Tensor) -> Axes:
    """The axes of the second sample, as far as they are not another name of the first's."""
    found: dict[Axis, None] = {}
    for m in topological([n], lambda m: () if isinstance(m, tensor.Rename) else m.operands):
        if isinstance(m, Tensor):
            found.update(dict.fromkeys(m.axes))
    return tuple(a for a in found if a.name.endswith("'"))
