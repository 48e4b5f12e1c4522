"""Which lines of the generated NumPy module compute which tensor of a limit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import State
from tpc.lower.concretise import Concretiser
from tpc.lower.kernel_module import kernel_writers
from tpc.lower.kernels import lower_kernels
from tpc.lower.lowered import lower
from tpc.lower.numpy_module import module_writers
from tpc.lower.plan import Planner
from tpc.lower.writer import Line, Writer
from tpc.program.tensor import Constant, Input, Tensor

PAIRS = "pairs"


@dataclass(frozen=True)
class CodeLines:
    """The lines of the module (numbered from 1) that compute a tensor, and the function they are in.

    `name` is the variable that holds the tensor, or, of a tensor that planning joined with others, the first one that
    is computed from it; `joined` tells which.
    """

    function: str
    name: str
    lines: tuple[int, ...]
    joined: bool = False


def code_lines(graph: LimitGraph, source: str) -> dict[Tensor, CodeLines]:
    """The lines of `source`, the NumPy module of `graph`, that compute each of its tensors.

    A tensor that the module computes twice is found in the first function that has it. Arguments have no lines.
    """
    concrete, plan = Concretiser(graph), Planner()
    images = {t: plan(concrete(t)) for t in graph.nodes}
    if graph.updates:
        writers, cut = module_writers(lower(graph)), {}
    else:
        kernels = lower_kernels(graph)
        writers, cut = kernel_writers(kernels), dict(kernels.cut)
    text = source.splitlines()
    found: dict[Tensor, CodeLines] = {}
    for w in writers:
        here = {t: cut.get(image, image) for t, image in images.items()} if w.function.name == PAIRS else images
        found = _in_function(w, here, text.index(w.header) + 1) | found
    return found | dict(_joined(graph, found))


def _joined(graph: LimitGraph, found: Mapping[Tensor, CodeLines]) -> Iterator[tuple[Tensor, CodeLines]]:
    """The lines of the first user, for tensors that planning joined with it."""
    known = dict(found)
    for t in reversed(graph.nodes):
        for m in t.operands if t in known else ():
            if isinstance(m, Tensor) and m not in found and not isinstance(m, State | Input | Constant):
                known[m] = replace(known[t], joined=True)
    return ((t, lines) for t, lines in known.items() if t not in found)


def _in_function(w: Writer, images: Mapping[Tensor, Tensor], start: int) -> dict[Tensor, CodeLines]:
    """The lines of a function whose first line is number `start`."""
    places: dict[str, list[int]] = {}
    for k, line in enumerate(w.lines):
        for name in {*line.gives, *([line.block] if line.block else [])}:
            places.setdefault(name, []).append(k)
    own = {t: w.names[image] for t, image in images.items() if image in w.names and not isinstance(image, Constant)}
    own = {t: name for t, name in own.items() if not isinstance(t, State)}
    made = set(own.values())
    found = {}
    for t, name in own.items():
        if name in places:
            lines = sorted(start + 1 + k for k in _needed(name, places, made, w.lines))
            found[t] = CodeLines(w.function.name, name, tuple(lines))
    return found


def _needed(name: str, places: Mapping[str, Iterable[int]], made: set[str], lines: Sequence[Line]) -> set[int]:
    """The lines that give a name, with those of the helpers it is made from."""
    needed: set[int] = set()
    wanted, seen = [name], {name}
    while wanted:
        for k in places[wanted.pop()]:
            needed.add(k)
            for other in lines[k].uses:
                if other in places and other not in made and other not in seen:
                    seen.add(other)
                    wanted.append(other)
    return needed
