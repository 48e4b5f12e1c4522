"""The limit graph as a networkx graph, for analysis and drawing."""

from __future__ import annotations

from typing import Any

import networkx as nx

from tpc.limits.graph import Accumulate, Append, Expectation, Gram, Kernel, LimitGraph, State, atoms_in
from tpc.limits.text import equation, limit_names, update_line
from tpc.program import tensor
from tpc.program.tensor import Tensor


def to_networkx(graph: LimitGraph) -> Any:
    """A networkx.DiGraph: one node per tensor and per update; edges run from operand to result.

    Node attributes: label, op, kind (input, state, latent, gram, kernel, contract, map, loss, output, update), axes,
    equation, layer. Edge attribute: position among the operands.
    """
    names = limit_names(graph)
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
            equation=f"{names[n]} = {right}",
            layer=_layer(n),
        )
        for position, operand in enumerate(n.operands):
            if isinstance(operand, Tensor) and names.is_line(operand):
                view.add_edge(names[operand], names[n], position=position)
    for weight, updates in graph.updates:
        for k, u in enumerate(updates):
            label = f"update {weight}" if len(updates) == 1 else f"update {weight} ({k + 1})"
            axes = u.state.axes if isinstance(u, Accumulate) else u.store.coefficients.axes
            view.add_node(
                label,
                label=label,
                op=type(u).__name__,
                kind="update",
                axes=tuple(a.name for a in axes),
                equation=update_line(u, names),
                layer=weight.removesuffix(".bias"),
            )
            sources = (u.coefficient, *u.columns, *u.thetas) if isinstance(u, Append) else (u.gradient,)
            for position, t in enumerate(sources):
                if names.is_line(t):
                    view.add_edge(names[t], label, position=position)
    return view


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
