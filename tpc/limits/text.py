"""The limit graph as a listing: one tensor per line, then the update of every weight."""

from __future__ import annotations

from tpc.limits.graph import Accumulate, Append, Expectation, Gram, Kernel, LimitGraph, State
from tpc.program.node import Node
from tpc.program.tensor import Tensor
from tpc.program.text import Names, operation, type_of


def listing(graph: LimitGraph) -> str:
    """The whole graph as text."""
    names = Names(list(graph.nodes), _prefix)
    lines = [f"limit {graph.limit} of {graph.name}"]
    for axis in graph.axes:
        if axis.base == axis.name:
            size = "" if axis.size is None else f" = {axis.size}"
            lines.append(f"axis {axis.name}{size} ({axis.role})")
    lines += [f"{names[n]} : {type_of(n)} = {equation(n, names)}" for n in graph.nodes if names.is_line(n)]
    lines += [f"output {name} = {names[t]}" for name, t in graph.outputs]
    lines += [f"norm2 {name} = {names[t]}" for name, t in graph.norms]
    lines += update_lines(graph, names)
    return "\n".join(lines) + "\n"


def update_lines(graph: LimitGraph, names: Names) -> list[str]:
    """The update rule of every weight; η is the learning rate times the weight's multiplier, λ its decay."""
    lines = []
    for weight, updates in graph.updates:
        for u in updates:
            if isinstance(u, Accumulate):
                lines.append(f"update {u.state.name} <- (1 - ηλ) {u.state.name} - η {names[u.gradient]}")
            else:
                lines.append(_append_line(u, names))
        assert weight
    return lines


def _append_line(u: Append, names: Names) -> str:
    columns = ", ".join(
        f"{c.name} <- [{c.name}; {'unit ' if c.unit else ''}{names[t]}]" for c, t in zip(u.store.columns, u.columns)
    )
    norm = "" if not u.store.degree else f"|{names[u.columns[0]]}|" + (f"^{u.store.degree}" if u.store.degree > 1 else "")
    a = u.store.coefficients.name
    thetas = "".join(f", {c.name} <- [{c.name}; {names[t]}]" for c, t in zip(u.store.thetas, u.thetas))
    coefficient = f"{names[u.coefficient]}" + (f"·{norm}" if norm else "")
    return f"append {a} <- [(1 - ηλ) {a}; -η {coefficient}], {columns}{thetas}  for each {', '.join(map(str, u.batch))}"


def equation(n: Tensor, names: Names) -> str:
    """The right-hand side of a line."""
    match n:
        case State():
            return "state" + (" (unit rows)" if n.unit else "")
        case Gram():
            return f"<{names[n.a]}, {names[n.b]}>"
        case Kernel():
            return f"V[{n.phi}, {n.psi}]({names[n.p]}, {names[n.q]}, {names[n.c]})"
        case Expectation():
            return f"E[{n.fn}]({', '.join(names[g] for g in n.grams)})"
    return operation(n, names)


def _prefix(n: Node) -> str:
    if isinstance(n, Gram):
        return "c"
    if isinstance(n, Kernel | Expectation):
        return "k"
    assert isinstance(n, Tensor)
    return "g" if any(a.role == "rank" for a in n.axes) else "s"
