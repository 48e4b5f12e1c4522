"""Which lines of the generated NumPy module compute which tensor of a limit."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import takewhile

from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import State
from tpc.lower.concretise import Concretiser
from tpc.lower.kernel_module import kernel_printers
from tpc.lower.kernels import lower_kernels
from tpc.lower.lowered import lower
from tpc.lower.numpy_module import module_printers
from tpc.lower.numpy_printer import NumpyPrinter
from tpc.lower.plan import Planner
from tpc.program.tensor import Constant, Input, Tensor

PAIRS = "pairs"
_ASSIGNED = re.compile(r"^\s*((?:[A-Za-z_]\w*, )*[A-Za-z_]\w*),? = (.*)$")
_BLOCK = re.compile(r"^    def (\w+)\(")
_WORD = re.compile(r"[A-Za-z_]\w*")


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
    concrete, plan = Concretiser(graph.stores), Planner()
    images = {t: plan(concrete(t)) for t in graph.nodes}
    if graph.updates:
        printers, cut = module_printers(lower(graph)), {}
    else:
        kernels = lower_kernels(graph)
        printers, cut = kernel_printers(kernels), dict(kernels.cut)
    text = source.splitlines()
    found: dict[Tensor, CodeLines] = {}
    for printer in printers:
        start = text.index(printer.text().partition("\n")[0])
        here = {t: cut.get(image, image) for t, image in images.items()} if printer.function_name == PAIRS else images
        found = _in_function(printer, here, text, start) | found
    return found | dict(_joined(graph, found))


def _joined(graph: LimitGraph, found: Mapping[Tensor, CodeLines]) -> Iterator[tuple[Tensor, CodeLines]]:
    """The lines of the first user, for tensors that planning joined with it."""
    known = dict(found)
    for t in reversed(graph.nodes):
        for m in t.operands if t in known else ():
            if isinstance(m, Tensor) and m not in found and not isinstance(m, State | Input | Constant):
                known[m] = replace(known[t], joined=True)
    return ((t, lines) for t, lines in known.items() if t not in found)


def _in_function(
    printer: NumpyPrinter, images: Mapping[Tensor, Tensor], text: list[str], start: int
) -> dict[Tensor, CodeLines]:
    names = printer.names
    assigned: dict[str, list[int]] = {}
    for k in range(start + 1, len(text)):
        if text[k] and not text[k].startswith(" "):
            break
        if match := _ASSIGNED.match(text[k]):
            for one in match[1].split(", "):
                assigned.setdefault(one, []).append(k)
        elif match := _BLOCK.match(text[k]):
            body = takewhile(lambda j: text[j].startswith(" " * 8), range(k + 1, len(text)))
            assigned[match[1]] = [k, *body]
    own = {t: names[image] for t, image in images.items() if image in names and not isinstance(image, Constant)}
    own = {t: name for t, name in own.items() if not isinstance(t, State)}
    made = set(own.values())
    found = {}
    for t, name in own.items():
        if name in assigned:
            lines = _needed(name, assigned, made, text)
            found[t] = CodeLines(printer.function_name, name, tuple(k + 1 for k in sorted(lines)))
    return found


def _needed(name: str, assigned: Mapping[str, Iterable[int]], made: set[str], text: list[str]) -> set[int]:
    """The lines that assign a name, with those of the helpers it is made from."""
    lines: set[int] = set()
    wanted, seen = [name], {name}
    while wanted:
        for k in assigned[wanted.pop()]:
            lines.add(k)
            for word in _WORD.findall(text[k].partition("#")[0]):
                if word in assigned and word not in made and word not in seen:
                    seen.add(word)
                    wanted.append(word)
    return lines
