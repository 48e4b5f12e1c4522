"""The verifier of limit graphs. A failure is our bug, not the user's."""

from __future__ import annotations

from tpc.errors import InternalError
from tpc.limits.graph import LimitGraph
from tpc.limits.nodes import Gram
from tpc.limits.store import Append
from tpc.program.axes import union
from tpc.program.ir import Vector
from tpc.program.node import topological
from tpc.program.tensor import Contract


def verify_limit(graph: LimitGraph, after: str) -> LimitGraph:
    """Return the graph unchanged, or raise InternalError naming the broken rule."""

    def broken(rule: str) -> None:
        raise InternalError(f"after {after}, limit of {graph.name}: {rule}")

    sizes: dict[str, tuple[int | None, str]] = {}
    for n in topological(graph.roots):
        if isinstance(n, Vector):
            broken(f"{n!r} still has a width axis")
    for t in graph.nodes:
        for axis in t.axes:
            if sizes.setdefault(axis.base, (axis.size, axis.role)) != (axis.size, axis.role):
                broken(f"axis {axis} has two sizes or roles")
        if isinstance(t, Contract) and not set(t.over) <= set(union(*(f.axes for f in t.factors))):
            broken(f"{t!r} sums over axes its factors lack")
        if isinstance(t, Gram) and not (t.rank in t.a.axes and t.rank in t.b.axes):
            broken(f"{t!r} joins latents of different spaces")
    for name, tensor in graph.outputs:
        if any(a.role != "finite" for a in tensor.axes):
            broken(f"output {name} depends on {tensor.axes}")
    for _, updates in graph.updates:
        for u in updates:
            if isinstance(u, Append):
                allowed = set(u.batch) | set(u.store.coefficients.axes[1:])
                if not set(u.coefficient.axes) <= allowed:
                    broken(f"the coefficients appended to {u.store.name} have axes {u.coefficient.axes}")
            elif not set(u.gradient.axes) <= set(u.state.axes):
                broken(f"the gradient of {u.state.name} has axes {u.gradient.axes}")
    return graph
