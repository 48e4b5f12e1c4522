"""What a compilation is, on one screen: parameters, kernels, what a step costs, how well it folds."""

from __future__ import annotations

import sympy as sp

from tpc.derivation import Derivation
from tpc.errors import UserError
from tpc.gaussian.kernel import kernel
from tpc.gaussian.names import KernelNames
from tpc.limits.fold import fold_store
from tpc.limits.graph import DIAGONAL, LimitGraph
from tpc.limits.nodes import Kernel
from tpc.limits.store import Accumulate, Append
from tpc.program.ir import Matrix, Vector
from tpc.program.naming import text

POINTS = 1024  # that the cost of a sampled tail is told for


def summary(limit: Derivation) -> str:
    """One screen about a compilation."""
    program, graph = limit.program, limit.graph()
    derived = "one output and its gradients" if limit.is_kernel else "backward pass and projection"
    nodes = program.nodes
    vectors = [n for n in nodes if isinstance(n, Vector)]
    gaussian = sum(n.kind == "G" for n in vectors)
    matrices = sum(isinstance(n, Matrix) for n in nodes)
    finite = len(nodes) - len(vectors) - matrices
    lines = [
        f"{program.name}: {len(nodes)} lines ({gaussian} G-vectors, {len(vectors) - gaussian} X-vectors, "
        f"{matrices} matrices, {finite} scalars) over the spaces {', '.join(program.spaces)}",
        f"with {derived}: {len(limit.trained().nodes)} lines",
        f"{limit.kind}-limit: {len(graph.nodes)} tensors, "
        f"{sum(isinstance(n, Kernel) for n in graph.nodes)} kernel evaluations",
        "",
    ]
    if not limit.is_kernel:
        lines += ["parameters", *(f"  {weight:<16}{parameter(updates)}" for weight, updates in graph.updates), ""]
    lines += ["kernels"]
    names = KernelNames(graph.kernels)
    lines += [f"  {name}(x) = {text(phi)}" for name, phi in names.definitions.items()]
    for phi, psi in names.pairs:
        v = kernel(phi, psi)
        form = "numeric" if v.plain is None else sp.sstr(v.plain)
        lines.append(f"  {names.kernel(phi, psi)}(p, q, c) = {form}")
    if limit.is_kernel:
        return "\n".join([*lines, "", *entries(graph)]) + "\n"
    lines += [
        "",
        "cost of a step: rank r, batch b, M atoms per kernel matrix",
        *(f"  {line}" for line in costs(graph)),
        "",
        *folding(graph),
    ]
    return "\n".join(lines) + "\n"


def facts(limit: Derivation) -> dict[str, object]:
    """What `summary` says, as plain numbers, texts and lists; a kernel without closed form has null."""
    program, graph = limit.program, limit.graph()
    forms = {name: v.plain for name, v in limit.kernels.items()}
    found: dict[str, object] = {
        "program": program.name,
        "limit": limit.kind,
        "lines": len(program.nodes),
        "spaces": list(program.spaces),
        "kernels": {name: None if form is None else sp.sstr(form) for name, form in forms.items()},
        "warnings": list(limit.warnings),
    }
    if not limit.is_kernel:
        found |= {
            "parameters": {weight: parameter(updates) for weight, updates in graph.updates},
            "cost_of_a_step": list(costs(graph)),
        }
    return found


def parameter(updates: tuple[object, ...]) -> str:
    """How a weight is stored, and what a step does to it, in words."""
    shown = []
    for u in updates:
        if isinstance(u, Append):
            s = u.store
            columns = ", ".join(
                f"{c.name}[{', '.join(map(str, c.axes))}]" for c in (s.coefficients, *s.columns, *s.thetas)
            )
            unit = ", unit rows" if s.degree is not None else ""
            shown.append(f"atoms {text(s.fn)}: {columns}{unit}; every step appends the batch")
        elif isinstance(u, Accumulate):
            state = u.state
            shown.append(f"array {state.name}[{', '.join(map(str, state.axes))}]; every step adds to it")
    return "; ".join(shown)


def folding(graph: LimitGraph) -> list[str]:
    """What mode folded keeps instead of old atoms, and how well."""
    from tpc.runtime.models.folding import TOLERANCE, least_degree, numbers_stored, relative_remainder

    try:
        degree = least_degree(graph, TOLERANCE)
    except UserError as error:
        return [f"folding (--mode folded): {error}"]
    lines = [f"folding (--mode folded): degree {degree}; besides its tensors about 1,000 of the newest atoms are kept"]
    for s in graph.stores:
        f = fold_store(s, degree)
        sizes = ", ".join(f"{4e-6 * numbers_stored(f, r):,.1f} MB at r = {r}" for r in (100, 200, 400))
        errors = ", ".join(f"{relative_remainder(f, rho):.2g} at |ρ| = {rho:g}" for rho in (0.5, 1.0))
        lines.append(f"  {s.name:<14} degrees {', '.join(str(m.order) for m in f.moments)}; {sizes} (float32)")
        lines.append(
            f"  {'':<14} |V - series| ≤ {errors} of V at unit variances; fitted weights: less, measured in training"
        )
    folds = [fold_store(s, degree) for s in graph.stores]
    more = [4e-6 * sum(numbers_stored(fold_store(f.store, degree, POINTS), r) - numbers_stored(f, r) for f in folds)
            for r in (100, 200, 400)]  # fmt: skip
    if any(more):
        sizes = ", ".join(f"{size:,.1f} MB at r = {r}" for size, r in zip(more, (100, 200, 400)))
        lines.append(f"  --fold-points {POINTS} keeps what the series leave out, without a bias: {sizes} more")
    return lines


def costs(graph: LimitGraph) -> list[str]:
    """Multiply-adds and reads of every kernel matrix, from its columns' widths."""
    lines = []
    for s in graph.stores:
        wide = any(a.role == "rank" for a in s.coefficients.axes)
        outputs = "r" if wide else str(next((a.size for a in s.coefficients.axes[1:]), 1))
        width = len(s.columns)
        lines.append(
            f"{s.name:<14} memory M·({_times(width)}r + {outputs}) numbers, read twice; "
            f"about 2·b·M·({_times(2 * width)}r + 2·{outputs}) multiply-adds; M grows by b"
        )
    return lines


def entries(graph: LimitGraph) -> list[str]:
    """What a kernel limit computes, and for how many pairs of samples."""
    found = [name for name, _ in graph.outputs if not name.endswith(DIAGONAL)]
    pairs = sum(isinstance(n, Kernel) and len(n.axes) > 1 for n in graph.nodes)
    return [
        f"{' and '.join(found)} of N1 × N2 samples with d features",
        f"  2·d multiply-adds and {pairs} kernel evaluations per entry; half of them where x2 is x1",
    ]


def _times(n: int) -> str:
    return "" if n == 1 else str(n)


def sizes(limit: Derivation, degree: int | None = None, points: int = 0) -> dict[str, str]:
    """The sizes of a compilation."""
    nodes, graph = limit.program.nodes, limit.graph(degree=degree, points=points)
    vectors = [n for n in nodes if isinstance(n, Vector)]
    return {
        "lines of the program": str(len(nodes)),
        "G- and X-vectors": f"{sum(n.kind == 'G' for n in vectors)} + {sum(n.kind == 'X' for n in vectors)}",
        "matrices": str(sum(isinstance(n, Matrix) for n in nodes)),
        "spaces": str(len(limit.program.spaces)),
        "lines with gradients": str(len(limit.trained().nodes)),
        "tensors of the limit": str(len(graph.nodes)),
        "kernel evaluations": str(sum(isinstance(n, Kernel) for n in graph.nodes)),
        "different kernels": str(len(graph.kernels)),
    }
