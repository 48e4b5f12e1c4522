"""The limit graph as a networkx graph, for analysis and drawing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import networkx as nx

from tpc.errors import SourceLine
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Expectation, Gram, Kernel, State, atoms_in
from tpc.limits.origin import UPDATE, Origin, instruction, line_of, origins, parts_of
from tpc.limits.store import Accumulate, Update
from tpc.limits.text import equation, limit_names, update_line
from tpc.passes.project import PREFIX
from tpc.program import tensor
from tpc.program.axes import Axes
from tpc.program.lines import Names
from tpc.program.program import Program
from tpc.program.tensor import Tensor


def to_networkx(graph: LimitGraph, program: Program | None = None) -> Any:
    """A networkx.DiGraph: one node per tensor and per update; edges run from operand to result.

    Node attributes: label, op, kind (input, state, latent, gram, kernel, contract, map, loss, output, update), axes,
    shape (name, role and size of every axis), equation, layer. With the program that `graph` is the limit of, also
    instruction (its line in the listing of the program), whole (whether the node is its limit, or part of it), rule,
    step (the rule for the node within the limit), stage, source (file:line of the user) and line (the text there).
    Edge attribute: position among the operands.
    """
    names = limit_names(graph)
    told = _Told(graph, program) if program is not None else None
    outputs = {t: name for name, t in graph.outputs}
    view = nx.DiGraph(name=f"{graph.limit}-limit of {graph.name}")
    for n in graph.nodes:
        if not names.is_line(n):
            continue
        right = equation(n, names)
        view.add_node(
            names[n],
            label=outputs.get(n, names[n]),
            op=type(n).__name__,
            kind=_kind(n, outputs.get(n)),
            axes=tuple(a.name for a in n.axes),
            shape=_shape(n.axes),
            equation=f"{names[n]} = {right}",
            layer=_layer(n),
            **({} if told is None else told.tensor(n)),
        )
        for position, operand in enumerate(n.operands):
            if isinstance(operand, Tensor) and names.is_line(operand):
                view.add_edge(names[operand], names[n], position=position)
    for label, u in update_labels(graph):
        axes = u.state.axes if isinstance(u, Accumulate) else u.store.coefficients.axes
        weight = u.state.name.removesuffix(".A") if isinstance(u, Accumulate) else u.store.weight
        view.add_node(
            label,
            label=label,
            op=type(u).__name__,
            kind="update",
            axes=tuple(a.name for a in axes),
            shape=_shape(axes),
            equation=update_line(u, names),
            layer=weight.removesuffix(".bias"),
            **({} if told is None else told.update(weight)),
        )
        for position, t in enumerate(parts_of(u)):
            if names.is_line(t):
                view.add_edge(names[t], label, position=position)
    return view


def update_labels(graph: LimitGraph) -> list[tuple[str, Update]]:
    """The updates with the names of their nodes."""
    return [
        (f"update {weight}" if len(updates) == 1 else f"update {weight} ({k + 1})", u)
        for weight, updates in graph.updates
        for k, u in enumerate(updates)
    ]


class _Told:
    """What is known about where nodes come from, as texts."""

    def __init__(self, graph: LimitGraph, program: Program) -> None:
        self._program = program
        self._names = Names(program.nodes)
        self._origins = origins(graph, program)

    def tensor(self, n: Tensor) -> dict[str, Any]:
        found: Origin = self._origins[n]
        return {
            "instruction": instruction(found.node, self._names),
            "whole": found.whole,
            "rule": f"{found.rule.name}: {found.rule.equation}",
            "step": f"{found.step.name}: {found.step.equation}",
            "stage": found.stage,
            **_place(found.where),
        }

    def update(self, weight: str) -> dict[str, Any]:
        gradient = self._program[PREFIX + weight]
        where = line_of(gradient, self._program)
        return {
            "instruction": instruction(gradient, self._names),
            "whole": True,
            "rule": f"{UPDATE.name}: {UPDATE.equation}",
            "step": "",
            "stage": "update",
            **_place(where),
        }


def _place(where: SourceLine | None) -> dict[str, str]:
    """The user's line, without the folder that the program lies in."""
    if where is None:
        return {"source": "", "line": ""}
    return {"source": f"{Path(where.file).name}:{where.line}", "line": where.text}


def _shape(axes: Axes) -> tuple[dict[str, Any], ...]:
    return tuple({"name": a.name, "role": a.role, "size": a.size} for a in axes)


def _kind(n: Tensor, output: str | None) -> str:
    if output is not None:
        return "loss" if output == "loss" else "output"
    if isinstance(n, tensor.Input):
        return "input"
    if isinstance(n, State):
        return "state"
    if isinstance(n, Gram):
        return "gram"
    if isinstance(n, Kernel | Expectation):
        return "kernel"
    if any(a.role == "rank" for a in n.axes) and not atoms_in(n.axes):
        return "latent"
    return "contract" if isinstance(n, tensor.Contract) and n.over else "map"


def _layer(n: Tensor) -> str:
    """The layer a tensor belongs to, where its name or its atoms tell."""
    if isinstance(n, State):
        return n.name.rpartition(".")[0] or n.name
    atoms = atoms_in(n.axes) or (atoms_in(n.over) if isinstance(n, tensor.Contract) else ())
    return atoms[0].base if atoms else ""
