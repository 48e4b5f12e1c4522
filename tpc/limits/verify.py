"""The verifier of limit graphs. A failure is our bug, not the user's."""

from __future__ import annotations

from typing import NoReturn

from tpc.errors import InternalError
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Gram
from tpc.limits.store import Append
from tpc.program.axes import Axis
from tpc.program.ir import Vector
from tpc.program.node import Node, topological
from tpc.program.verify import check_axes, check_functions, check_window


def verify_limit(graph: LimitGraph, after: str) -> LimitGraph:
    """Return the graph unchanged, or raise InternalError naming the broken rule."""

    def broken(n: Node | None, rule: str) -> NoReturn:
        what = f" at {n!r}" if n is not None else ""
        raise InternalError(f"after {after}, limit of {graph.name}{what}: {rule}")

    sizes: dict[str, Axis] = {}
    for n in topological(graph.roots):
        if isinstance(n, Vector):
            broken(n, "it still has a width axis")
        check_axes(n, sizes, broken)
        check_functions(n, broken)
        check_window(n, broken)
        if isinstance(n, Gram) and not (n.rank in n.a.axes and n.rank in n.b.axes):
            broken(n, "joins latents of different spaces")
    for name, tensor in graph.outputs:
        if any(a.role != "finite" for a in tensor.axes):
            broken(None, f"output {name} depends on {tensor.axes}")
    for _, updates in graph.updates:
        for u in updates:
            if isinstance(u, Append):
                allowed = set(u.batch) | set(u.store.coefficients.axes[1:])
                if not set(u.coefficient.axes) <= allowed:
                    broken(None, f"the coefficients appended to {u.store.name} have axes {u.coefficient.axes}")
            elif not set(u.gradient.axes) <= set(u.state.axes):
                broken(None, f"the gradient of {u.state.name} has axes {u.gradient.axes}")
    return graph
